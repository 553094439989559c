"""Write text files atomically."""

from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old or the new content, never a part, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)
