"""A file that a subcommand writes: there when it is whole, or not at all, and never in the place of another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from grulab.config_error import ConfigError
from grulab.run_folder.full_disk import explained_full_disk


def refuse_existing(key: str, path: Path) -> None:
    """Check that a file that is to be written does not exist, and its folder does.

    Raises:
        ConfigError: if it is there, or cannot be.
    """
    if path.is_dir():
        raise ConfigError(f"{key} {path}: is a folder; name a file in it")
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{key} {path}: is there already; name another file, or remove it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{key} {path}: there is no folder {path.absolute().parent}")


@contextmanager
def new_file(key: str, path: Path, command: str) -> Iterator[BinaryIO]:
    """Open a new file under a temporary name, and give it its name at the end.

    Args:
        key: the argument that names it, for the messages.
        path: of the file.
        command: what to give again when the disk was full.

    Raises:
        ConfigError: if it is there, or cannot be written.
        DiskFullError: if the disk is full.
    """
    refuse_existing(key, path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise ConfigError(f"{key} {path}: cannot be written ({error.strerror})") from None
    try:
        with explained_full_disk(path.absolute().parent, command), file:
            yield file
        # A link is not made in the place of a file that another process has made meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        refuse_existing(key, path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()
