"""Checkpoint files: plain data with a checksum, written in one go, and read without executing code."""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from grulab.internals.torch import with_room_for_comment

# The key of grulab's own entries in a checkpoint.
KEY = "grulab"
# Number of hexadecimal digits of the checksum at the end of a checkpoint.
_DIGITS = 64
_PARTS = {KEY, "state_dict", "loops", "callbacks"}
_NO_CHECKSUM = "it does not end with grulab's checksum"


class DamagedCheckpointError(RuntimeError):
    """A checkpoint is incomplete or was changed since it was written."""


class UnsafeCheckpointError(RuntimeError):
    """A checkpoint refers to something that is not plain data."""


class ChecksummedCheckpointIO(TorchCheckpointIO):
    """Write the checkpoints of a Trainer with a checksum at the end of the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; ``path`` must be a temporary name, because the process may be killed during the write."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).write_bytes(add_checksum(buffer.getvalue()))


def add_checksum(data: bytes) -> bytes:
    """Append a checksum of the whole zip archive, as the archive's comment.

    The archive has a checksum for each member, but none for its central directory, and a changed byte there can make
    a reader return zeros.
    """
    data = with_room_for_comment(data, _DIGITS)
    return data + _digest(data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint, possibly from an untrusted source.

    Raises:
        DamagedCheckpointError: if the file is incomplete, was changed, or was written by another program.
        UnsafeCheckpointError: if the file refers to code; none of that code has been executed.
        FileNotFoundError: if the file does not exist.
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
            # torch.load warns about the pickle protocol of files from other programs.
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Damaged bytes may raise any exception.
    except Exception as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message = f"{path}: refused: it asks for {wanted[1]}, which is code and not data; nothing was executed"
            raise UnsafeCheckpointError(message) from None
        content = None
    if not has_checksum or not isinstance(content, dict) or not content.keys() >= _PARTS:
        raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: {_NO_CHECKSUM}")
    return content
