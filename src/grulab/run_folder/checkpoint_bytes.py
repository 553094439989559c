"""Find the file of a checkpoint, read its bytes and check them, without importing torch."""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from grulab.config_error import ConfigError
from grulab.run_folder.paths import BEST, CHECKPOINTS
from grulab.system.regular_file import open_regular, refuse_odd_kinds

# Number of hexadecimal digits of the checksum at the end of a checkpoint.
DIGITS = 64
# A model of 65,536 units has some 300 GB of weights and moments; what a run can hold is checked by its configuration.
MAX_BYTES = 2**33
# Of a file without a checksum, which is opened to say what it asks for.
_MAX_BYTES_OF_OTHERS = 2**26
_BLOCK = 2**20


class DamagedCheckpointError(RuntimeError):
    """A checkpoint is incomplete or was changed since it was written."""


def find_checkpoint(path: Path) -> Path:
    """Return the path itself if it is a file, or the best checkpoint if it is a run's folder.

    Raises:
        ConfigError: if the path does not exist, or the folder holds no best checkpoint.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if not path.is_dir():
        return path
    best = path / CHECKPOINTS / BEST
    # The trace is written beside it, and a link would lead elsewhere.
    refuse_odd_kinds([best], [best.parent])
    if not best.is_file():
        raise ConfigError(f"{path}: holds no {CHECKPOINTS}/{BEST}; name a run's folder or a .ckpt")
    return best


def read_checkpoint(path: Path, max_bytes: int = MAX_BYTES) -> tuple[bytes, bool]:
    """Return the bytes of a checkpoint, and whether they end with a checksum; if they do, it is the right one.

    Raises:
        DamagedCheckpointError: if the checksum is not that of the bytes before it, or the file cannot be read.
        FileNotFoundError: if the file does not exist.
    """
    try:
        file = open_regular(path, max_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - DIGITS))
        found = file.read(DIGITS)
        has_checksum = re.fullmatch(rb"[0-9a-f]{64}", found) is not None
        if not has_checksum and size > _MAX_BYTES_OF_OTHERS:
            raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: it has no checksum")
        # Before it is read into memory: a file of any size can be made in no time.
        if has_checksum and found != checksum_of(file, size - DIGITS):
            raise DamagedCheckpointError(f"{path}: is damaged: its checksum is not that of its content")
        file.seek(0)
        return file.read(size), has_checksum


def checksum_of(file: BinaryIO, size: int) -> bytes:
    """Return the checksum of the first ``size`` bytes of a file, without reading them into memory at once."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()
