"""A full disk, in one line with the command that goes on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import read_summary


class DiskFullError(RuntimeError):
    """The disk is full; all files that were written before are intact."""


def is_full_disk(error: object) -> bool:
    """Return whether an error says that the disk is full or a quota exceeded."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskFullError)


@contextmanager
def explained_full_disk(folder: Path, command: str = "") -> Iterator[None]:
    """Report how to go on after a full disk.

    Args:
        folder: the folder that is written to.
        command: the command that goes on; by default ``grulab resume`` with the folder, if it can be resumed.

    Raises:
        DiskFullError: in place of an OSError for a full disk or an exceeded quota.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        command = command or (f"grulab resume {display_path(folder)}" if _can_be_resumed(folder) else "")
        go_on = f"go on with {command}" if command else "start it again"
        raise DiskFullError(f"{display_path(folder)}: the disk is full; make room, then {go_on}") from error


def _can_be_resumed(folder: Path) -> bool:
    names = (paths.SWEEP, paths.COMPOSED_CONFIG)
    return read_summary(folder) is not None or any((folder / name).is_file() for name in names)
