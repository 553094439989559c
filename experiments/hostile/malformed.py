"""Checkpoints with a valid checksum that no run has written."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Keys = tuple[Any, ...]


def seal(path: Path, content: Any) -> None:
    """Write a checkpoint with a checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    seal_bytes(path, buffer.getvalue())


def seal_bytes(path: Path, archive: bytes) -> None:
    """Write an archive with a checksum."""
    from grulab.run_folder.checkpoint_file import add_checksum

    path.write_bytes(add_checksum(archive))


class _Call:
    """An object whose pickle asks for a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def with_system_call(command: str) -> dict[str, Any]:
    """Return a content that runs a command if it is unpickled without care."""
    return {"grulab": _Call(command), "state_dict": {}, "loops": {}, "callbacks": {}}
