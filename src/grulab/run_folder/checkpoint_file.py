"""A checkpoint's file: plain data with a checksum, written in one go, opened without trusting it."""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

# Where a checkpoint keeps what Lightning has no place for.
KEY = "grulab"
# Of the checksum at a checkpoint's end.
_DIGITS = 64


class DamagedCheckpointError(RuntimeError):
    """A checkpoint is incomplete or was changed since it was written."""


class UnsafeCheckpointError(RuntimeError):
    """A checkpoint asks for something that is not plain data."""


class SealedFiles(TorchCheckpointIO):
    """Writes the checkpoints of a Trainer with a checksum at their end."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; whoever may be killed meanwhile writes it under another name first."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).write_bytes(seal(buffer.getvalue()))


def seal(data: bytes) -> bytes:
    """Add a checksum of a whole archive, as the comment that every zip archive may end with.

    The archive has a checksum for each member, but not for what it says of its members, and a byte changed there can
    make a reader see zeros.
    """
    assert data[-22:-18] == b"PK\x05\x06", "torch.save ends its archive without a comment"
    data = data[:-2] + _DIGITS.to_bytes(2, "little")
    return data + _digest(data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def load(path: Path) -> dict[str, Any]:
    """Open a checkpoint that may come from anywhere.

    Raises:
        DamagedCheckpointError: if it is incomplete, a byte of it has changed, or it is none of ours.
        UnsafeCheckpointError: if it asks for code; nothing of it has been executed.
        FileNotFoundError: if there is none.
    """
    try:
        data = path.read_bytes()
    except (PermissionError, IsADirectoryError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    sealed = re.fullmatch(rb"[0-9a-f]{64}", data[-_DIGITS:]) is not None
    if sealed and data[-_DIGITS:] != _digest(data[:-_DIGITS]):
        raise DamagedCheckpointError(f"{path}: is damaged: its checksum is not that of its content")
    try:
        with warnings.catch_warnings():
            # About the kind of pickle, when it is none of ours.
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Spoilt bytes make a reader fail in any way whatever.
    except Exception as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            message = f"{path}: refused: it asks for {wanted[1]}, which is code and not data; nothing was executed"
            raise UnsafeCheckpointError(message) from None
        content = None
    if not sealed or not isinstance(content, dict) or not {KEY, "state_dict", "loops", "callbacks"} <= content.keys():
        raise DamagedCheckpointError(f"{path}: is damaged, or not a checkpoint of grulab: it has no checksum of ours")
    return content
