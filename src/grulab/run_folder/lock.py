"""The lock of a folder, so that one process at a time writes to a run or a sweep."""

import errno
import fcntl
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.system.regular_file import refuse_odd_kinds

# Together long enough for a killed process to exit.
_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.1
# What file systems say that do not implement them, or whose lock server is away.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_HELD: set[Path] = set()
_GUARD = threading.Lock()

log = logging.getLogger(__name__)


class LockedError(ConfigError):
    """Another process writes to the folder."""


@contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Lock a run's folder, so that no other process writes to it.

    This is a POSIX lock of the kernel, which workers forked later do not share. The kernel releases it when the
    process ends for any reason, so a dead process leaves no lock.

    Raises:
        ConfigError: if the folder is locked (the message names the process and the time), cannot be written to, or
            has a link, a FIFO or the like where grulab writes.
    """
    refuse_odd_kinds(paths.written_files(run_dir), paths.written_folders(run_dir))
    path = run_dir / paths.LOCK
    place = _place(path)
    # The kernel's lock excludes other processes, but not other threads of this process.
    with _GUARD:
        if place in _HELD:
            raise ConfigError(f"{run_dir}: is in use by this process; wait for that run")
        _HELD.add(place)
    try:
        yield from _locked(run_dir, path)
    finally:
        _HELD.discard(place)


def is_locked(run_dir: Path) -> bool:
    """Return whether a process holds the lock of a run's folder."""
    path = run_dir / paths.LOCK
    with _GUARD:
        if _place(path) in _HELD:
            return True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            # Taking the lock is the only portable test. A _locked() at the same moment waits and tries again.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            # Not a file that can be locked.
            return False
        finally:
            os.close(descriptor)
        return False


def _locked(run_dir: Path, path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"{run_dir}: cannot be written to ({error.strerror}); a run needs its folder") from None
    try:
        for attempt in reversed(range(_ATTEMPTS)):
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if attempt == 0:
                    raise LockedError(
                        f"{run_dir}: is in use by {_holder(descriptor)}; wait for it or stop it"
                    ) from None
                time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                log.warning(
                    "%s: its file system has no locks (%s): nothing keeps a second process out, so start none; "
                    "docs/clusters.md",
                    run_dir, error.strerror,
                )  # fmt: skip
                break
        if not _is_same_file(descriptor, path):
            raise ConfigError(f"{run_dir}: was removed by another process; try again")
        me = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        yield
    finally:
        # Closing releases the lock. If the file were removed, two processes could lock two files of the same name.
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _place(path: Path) -> Path:
    """Return the path without links in its folder's name."""
    # Path.resolve raises an error for a loop of links.
    return Path(os.path.realpath(path))


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError):
        return "another process"
