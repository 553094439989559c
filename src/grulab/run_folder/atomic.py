"""Write text files atomically."""

from pathlib import Path

from grulab.run_folder.regular_file import create


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old or the new content, never a part, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    with create(temporary) as file:
        file.write(text.encode())
    temporary.replace(path)
