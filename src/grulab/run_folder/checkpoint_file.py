"""Checkpoint files: plain data with a checksum, written in one go, and read without executing code."""

import io
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from grulab.internals.torch import with_room_for_comment
from grulab.run_folder.checkpoint_bytes import DIGITS, MAX_BYTES, DamagedCheckpointError, checksum_of, read_checkpoint
from grulab.system.regular_file import create

# The key of grulab's own entries in a checkpoint.
KEY = "grulab"
_PARTS = {KEY, "state_dict", "loops", "callbacks"}
_ZIP = b"PK\x03\x04"
_NO_CHECKSUM = "it does not end with grulab's checksum"
_ODD_CONTENT = "its content is not that of one"
# An epoch adds ten values; a million epochs are more than anybody trains.
_MAX_VALUES = 10**7


class UnsafeCheckpointError(RuntimeError):
    """A checkpoint refers to something that is not plain data."""


class ChecksummedCheckpointIO(TorchCheckpointIO):
    """Write the checkpoints of a Trainer with a checksum at the end of the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; ``path`` must be a temporary name, because the process may be killed during the write."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with create(Path(path)) as file:
            file.write(add_checksum(buffer.getvalue()))


def add_checksum(data: bytes) -> bytes:
    """Append a checksum of the whole zip archive, as the archive's comment.

    The archive has a checksum for each member, but none for its central directory, and a changed byte there can make
    a reader return zeros.
    """
    data = with_room_for_comment(data, DIGITS)
    return data + checksum_of(io.BytesIO(data), len(data))


def load(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Load a checkpoint, possibly from an untrusted source.

    Args:
        path: of the checkpoint.
        max_bytes: a larger file is not read.

    Raises:
        DamagedCheckpointError: if the file is incomplete, was changed, or was written by another program.
        UnsafeCheckpointError: if the file refers to code; none of that code has been executed.
        FileNotFoundError: if the file does not exist.
    """
    data, has_checksum = read_checkpoint(path, max_bytes)
    try:
        _refuse_compressed(data)
        with warnings.catch_warnings():
            # torch.load warns about the pickle protocol of files from other programs.
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        _refuse_repetition(content)
    # Damaged bytes may raise any exception.
    except Exception as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message = f"{path}: refused: it asks for {wanted[1]}, which is code and not data; nothing was executed"
            raise UnsafeCheckpointError(message) from None
        content = None
    if not has_checksum:
        raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: {_NO_CHECKSUM}")
    if not isinstance(content, dict) or not content.keys() >= _PARTS:
        raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: {_ODD_CONTENT}")
    return content


def _refuse_compressed(data: bytes) -> None:
    """Refuse an archive whose members are larger than the archive: a small file could fill the memory.

    Raises:
        ValueError, BadZipFile: if it is such an archive, or a broken one.
    """
    if not data.startswith(_ZIP):
        # A bare pickle, which torch.load reads too.
        return
    with ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    is_compressed = any(member.compress_type != ZIP_STORED for member in members)
    if is_compressed or sum(member.file_size for member in members) > len(data):
        raise ValueError("torch.save does not compress")


def _refuse_repetition(content: Any) -> None:
    """Refuse nested values that are few in memory but many to visit, since lists may hold the same list many times.

    Raises:
        ValueError, RecursionError: if there are more values, or deeper ones, than a checkpoint can have.
    """
    if _count(content, {}) > _MAX_VALUES:
        raise ValueError("too many values")


def _count(value: Any, known: dict[int, float]) -> float:
    """Return the number of values in a nested value, each counted as often as a visitor comes to it."""
    if not isinstance(value, Mapping | list | tuple | set):
        return 1
    if id(value) not in known:
        # A value that holds itself has no end.
        known[id(value)] = math.inf
        parts = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
