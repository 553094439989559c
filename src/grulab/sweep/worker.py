"""Run jobs in a process that is forked from one that has already imported torch and Lightning."""

import faulthandler
import gc
import logging
import os
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobStatus

from grulab.config.schema import Config
from grulab.internals.hydra import run_job as run_in_hydra
from grulab.internals.hydra import value_or_error
from grulab.run_folder.full_disk import is_full_disk
from grulab.run_folder.lock import LockedError
from grulab.run_folder.paths import RUN_LOG
from grulab.sweep.failures import DISK_FULL_EXIT, LOCKED_EXIT
from grulab.sweep.hydra_jobs import Bases, HydraParts, job_config
from grulab.sweep.job import Job
from grulab.sweep.run_job import run_known
from grulab.system.parent_death import adopt_orphans, end_with_parent
from grulab.system.proc_status import anonymous_kibibytes, thread_count
from grulab.system.quick_import import quick_import
from grulab.system.signals import Interrupted, install_handler, restore_default_pauses, unblock_signals

# A process that has grown by more than this since its first job is replaced by a new one.
_MOST_GROWTH = 1.2
_SECONDS_BETWEEN_LOOKS = 5.0


def work(parts: HydraParts, bases: Bases, device: str | None, launcher: Connection, parent: int) -> NoReturn:
    """Run the jobs that the launcher sends, one after another, in a child process.

    After a job that is done, the launcher is sent whether this process goes on with other jobs: it does not if the
    job has left something behind. A job that is not done ends the process; the exit codes are 1 (failed), 73 (another
    process has its folder), 74 (disk full), 130 and 143 (stopped).

    Args:
        parts: the arguments that Hydra passes to the launcher.
        bases: the composed configurations; see :func:`grulab.sweep.hydra_jobs.compose_bases`.
        device: value of CUDA_VISIBLE_DEVICES, which selects one accelerator; None keeps the present value.
        launcher: sends jobs, each with its folder.
        parent: process id of the parent; this process ends when the parent ends.
    """
    code = 1
    try:
        _be_alone(parent)
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        _redirect_to(os.open(os.devnull, os.O_WRONLY))
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        _write_crashes()
        # It imports torch, which the launcher does only if there are jobs to do.
        from grulab.sweep.process_state import ProcessState

        before, size, native_threads = ProcessState.now(), 0, 0
        while (received := _next_job(launcher, parent)) is not None:
            with warnings.catch_warnings():
                code = _run(*received, parts, bases)
            if code:
                break
            before.restore()
            _write_crashes()
            gc.collect()
            _release_device_memory()
            # The first job starts the threads of libraries, and takes the memory that is usual.
            size, native_threads = size or _size(), native_threads or thread_count()
            is_as_before = ProcessState.now() == before and not _has_children() and thread_count() <= native_threads
            goes_on = is_as_before and _size() <= _MOST_GROWTH * size
            launcher.send(goes_on)
            if not goes_on:
                break
    except Interrupted as error:
        code = error.exit_code
    except Exception:
        # The job's own errors are caught; this is of what is done between two jobs, and goes to the last run.log.
        logging.getLogger(__name__).exception("the process cannot take another job")
    finally:
        logging.shutdown()
        # A regular exit takes a second with torch imported, and everything is already written.
        os._exit(code)


def prepare_to_fork(configs: Sequence[Config]) -> None:
    """Do the work that several jobs share once, before the fork, and leave no state that a fork could break.

    Raises:
        ImportError: if a library is missing.
    """
    # The threads of a BLAS that is loaded later would not survive a fork; jobs compute in torch.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with quick_import():
        # Lightning would import this module only when it writes the first event.
        import torch.utils.tensorboard  # noqa: F401

        import grulab.training.run  # noqa: F401
        from grulab.data.dataset import remember_splits
        from grulab.internals.lightning import note_missing_external_callbacks
        from grulab.run_folder.summary import git_state, versions
        from grulab.tasks.base import checked_ceiling
        from grulab.tasks.baselines import baselines
        from grulab.tasks.registry import build_task

    git_state()
    versions()
    note_missing_external_callbacks()
    if any(build_task(config.data).has_ids for config in configs):
        # Each job draws a confusion matrix.
        import matplotlib.figure  # noqa: F401
    counts = Counter(repr(config.data) for config in configs)
    for data in {repr(config.data): config.data for config in configs if counts[repr(config.data)] > 1}.values():
        checked_ceiling(build_task(data))
        baselines(build_task(data))
        remember_splits(data)


def _write_crashes() -> None:
    """Write the traceback of a crash in a native library to run.log.

    Lightning's trainer puts back the handlers of all signals as Python sees them, which ends this.
    """
    faulthandler.disable()
    faulthandler.enable()


def _next_job(launcher: Connection, parent: int) -> tuple[Job, Path] | None:
    """Wait for a job; return it with its folder, or None if the launcher has gone."""
    while not launcher.poll(_SECONDS_BETWEEN_LOOKS):
        if os.getppid() != parent:
            return None
    try:
        received: tuple[Job, Path] = launcher.recv()
    except EOFError:
        return None
    return received


def _run(job: Job, folder: Path, parts: HydraParts, bases: Bases) -> int:
    """Run a job; return 0 if it is done, or the exit code that says why it is not."""
    try:
        with _output_to(folder):
            # The function that Hydra was given would find the job in sweep.json, which may have thousands.
            returned = run_in_hydra(
                lambda _: run_known(job.config), job_config(job, parts, bases), folder, parts.context
            )
        if returned.status == JobStatus.COMPLETED:
            return 0
        error = value_or_error(returned)
        return DISK_FULL_EXIT if is_full_disk(error) else LOCKED_EXIT if isinstance(error, LockedError) else 1
    except Interrupted:
        raise
    except BaseException as error:
        # An error of Hydra's callbacks, logging or folders; an error of the run itself is already in its summary.
        from grulab.sweep.status import record_failure

        if is_full_disk(error):
            return DISK_FULL_EXIT
        logging.getLogger(__name__).exception("the job failed outside its run")
        record_failure(folder, job.config, type(error).__name__, str(error))
        return 1


def _release_device_memory() -> None:
    """Give memory that torch keeps for later back to the device, which the processes of other slots share."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _size() -> int:
    """Return the memory of this process in the system's unit; where that is unknown, the most that it has had."""
    return anonymous_kibibytes() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _be_alone(parent: int) -> None:
    """Leave the terminal's process group, and end when the parent process ends for any reason."""
    os.setsid()
    end_with_parent(parent)
    adopt_orphans()

    def stop(signum: int, frame: Any) -> None:
        raise Interrupted(signum)

    # Effective until the run installs its own handlers.
    install_handler(stop)
    restore_default_pauses()
    unblock_signals()


@contextmanager
def _output_to(folder: Path) -> Iterator[None]:
    """Redirect the output of the job and of native libraries to run.log, because the terminal shows the sweep."""
    # If there can be no run.log, the terminal is still the sweep's, which says what is wrong with the folder.
    _redirect_to(os.open(os.devnull, os.O_WRONLY))
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    _redirect_to(os.open(folder / RUN_LOG, flags, 0o644))
    yield
    sys.stdout.flush()
    sys.stderr.flush()


def _redirect_to(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
