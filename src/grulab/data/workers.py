"""What the worker processes of the DataLoaders need of the machine, checked without torch."""

import errno
import multiprocessing

from grulab.config_error import ConfigError

# Training, validation and test have a loader each. A loader has a queue for its results, an event, and a queue for
# each worker: three semaphores for a queue, five for an event.
_LOADERS = 3
_SEMAPHORES_OF_LOADER = 8
_SEMAPHORES_OF_WORKER = 3
_CAUSES = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full",
    errno.EROFS: "cannot be written to",
    errno.EACCES: "cannot be written to",
    errno.EPERM: "cannot be written to",
    errno.ENOENT: "is missing",
    errno.ENOSYS: "is missing",
}


class WorkersNotStartedError(RuntimeError):
    """The machine does not give worker processes what they need."""


def refuse_missing_workers(num_workers: int) -> None:
    """Check that this machine can start so many workers.

    Raises:
        ConfigError: if not.
    """
    if problem := why_no_workers(num_workers):
        raise ConfigError(problem)


def why_no_workers(num_workers: int) -> str | None:
    """Return one line if the machine lacks the semaphores of so many workers, which Linux keeps in /dev/shm."""
    if num_workers == 0:
        return None
    try:
        # Held together, as the loaders do.
        _ = [
            _new_semaphore() for _ in range(_LOADERS * (_SEMAPHORES_OF_LOADER + _SEMAPHORES_OF_WORKER * num_workers))
        ]
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, "cannot be used")
        return (
            f"data.num_workers={num_workers}: worker processes need a little shared memory, and /dev/shm {cause} "
            f"({error.strerror}); mend that, or set data.num_workers=0"
        )
    except ImportError:
        return f"data.num_workers={num_workers}: this system has no semaphores for workers; set data.num_workers=0"
    return None


def _new_semaphore() -> object:
    return multiprocessing.get_context("fork").Lock()
