"""The file of a checkpoint: plain data with a checksum, written in one go, and read as data from anybody."""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from grulab.internals.torch import with_room_for_comment

# Where a checkpoint keeps what Lightning has no place for.
KEY = "grulab"
# Of the checksum at a checkpoint's end.
_DIGITS = 64
_PARTS = {KEY, "state_dict", "loops", "callbacks"}
_NO_CHECKSUM = "it does not end with grulab's checksum"


class DamagedCheckpointError(RuntimeError):
    """A checkpoint is incomplete or was changed since it was written."""


class UnsafeCheckpointError(RuntimeError):
    """A checkpoint asks for something that is not plain data."""


class ChecksummedCheckpointIO(TorchCheckpointIO):
    """Writes the checkpoints of a Trainer with a checksum at their end."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file, under a name that nobody reads yet: the process may be killed meanwhile."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).write_bytes(add_checksum(buffer.getvalue()))


def add_checksum(data: bytes) -> bytes:
    """Add a checksum of a whole archive, as the comment that every zip archive may end with.

    The archive has a checksum for each member, but none for its directory of them, and a byte changed there can make
    a reader see zeros.
    """
    data = with_room_for_comment(data, _DIGITS)
    return data + _digest(data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def load(path: Path) -> dict[str, Any]:
    """Open a checkpoint that may come from anywhere.

    Raises:
        DamagedCheckpointError: if it is incomplete, a byte of it has changed, or another program wrote it.
        UnsafeCheckpointError: if it asks for code; nothing of it has been executed.
        FileNotFoundError: if there is none.
    """
    try:
        data = path.read_bytes()
    except (PermissionError, IsADirectoryError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    has_checksum = re.fullmatch(rb"[0-9a-f]{64}", data[-_DIGITS:]) is not None
    if has_checksum and data[-_DIGITS:] != _digest(data[:-_DIGITS]):
        raise DamagedCheckpointError(f"{path}: is damaged: its checksum is not that of its content")
    try:
        with warnings.catch_warnings():
            # It warns of the kind of pickle in other programs' files.
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Spoilt bytes may raise any exception.
    except Exception as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message = f"{path}: refused: it asks for {wanted[1]}, which is code and not data; nothing was executed"
            raise UnsafeCheckpointError(message) from None
        content = None
    if not has_checksum or not isinstance(content, dict) or not content.keys() >= _PARTS:
        raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: {_NO_CHECKSUM}")
    return content
