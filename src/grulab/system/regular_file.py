"""Read and write files of a folder that may come from anybody: regular files only, and none through a link.

A FIFO would block its reader, a link to a device would never end, and a link in the place of a file that grulab
writes would make it overwrite another file.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from grulab.config_error import ConfigError
from grulab.system.printable import printable

# The limits are far above the sizes that files of a run or a sweep can have.
MAX_JSON_BYTES = 2**22
MAX_TABLE_BYTES = 2**26


def open_regular(path: Path, max_bytes: int) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        FileNotFoundError: if it does not exist.
        OSError: if it is of another kind, larger than ``max_bytes``, or cannot be read; ``strerror`` says which.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = OSError(errno.EINVAL, f"is {_kind(status.st_mode)}, not a regular file", str(path))
    elif status.st_size > max_bytes:
        problem = OSError(errno.EFBIG, f"has {status.st_size:,} bytes, more than such a file can have", str(path))
    if problem is not None:
        os.close(descriptor)
        raise problem
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        As :func:`open_regular`.
    """
    with open_regular(path, max_bytes) as file:
        # A read of max_bytes would take that much memory for any file.
        return file.read(os.fstat(file.fileno()).st_size)


def create(path: Path) -> BinaryIO:
    """Create a file for writing in place of what has this name; a link is replaced, and not followed."""
    refuse_odd_kinds([path] if path.is_dir() and not path.is_symlink() else [], [])
    path.unlink(missing_ok=True)
    return path.open("xb")


def refuse_odd_kinds(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Check that these names are free, or are regular files and folders: no links, FIFOs or devices.

    Raises:
        ConfigError: naming the first that is of another kind.
    """
    for paths, is_right, expected in ((files, stat.S_ISREG, "a regular file"), (folders, stat.S_ISDIR, "a folder")):
        for path in paths:
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not is_right(mode):
                raise ConfigError(
                    f"{printable(str(path))}: is {_kind(mode)}, and grulab writes {expected} there; remove it"
                )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "of another kind")
