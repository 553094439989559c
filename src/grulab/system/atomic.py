"""Write files atomically."""

from contextlib import suppress
from pathlib import Path

from grulab.system.regular_file import create


def temporary_of(path: Path) -> Path:
    """Return where the new content of a file is until it is whole; after a crash it may be left there."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old or the new content, never a part, also after a crash."""
    temporary = temporary_of(path)
    try:
        with create(temporary) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError:
        # On a full disk a part of the content takes room, and a folder that holds it does not count as empty.
        with suppress(OSError):
            temporary.unlink()
        raise
    temporary.replace(path)
