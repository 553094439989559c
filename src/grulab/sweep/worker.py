"""Run a job in its own process, forked from a process that has already imported torch and Lightning."""

import faulthandler
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobStatus
from hydra.core.utils import run_job as run_in_hydra

from grulab.config.schema import Config
from grulab.internals.hydra import value_or_error
from grulab.run_folder.full_disk import is_full_disk
from grulab.run_folder.lock import LockedError
from grulab.run_folder.paths import RUN_LOG
from grulab.sweep.failures import DISK_FULL_EXIT, LOCKED_EXIT
from grulab.sweep.hydra_jobs import Bases, HydraParts, job_config
from grulab.sweep.job import Job
from grulab.sweep.run_job import run_known
from grulab.system.parent_death import end_with_parent
from grulab.system.quick_import import quick_import
from grulab.system.signals import Interrupted, install_handler, restore_default_pauses, unblock_signals


def work(parts: HydraParts, bases: Bases, job: Job, folder: Path, device: str | None, parent: int) -> NoReturn:
    """Run a job in the child process; exit with 0 (done), 1 (failed), 73 (another process has its
    folder), 74 (disk full), 130 or 143 (stopped).

    Args:
        parts: the arguments that Hydra passes to the launcher.
        bases: the composed configurations; see :func:`grulab.sweep.hydra_jobs.compose_bases`.
        job: the job to run.
        folder: the job's folder.
        device: value of CUDA_VISIBLE_DEVICES, which selects one accelerator; None keeps the present value.
        parent: process id of the parent; the child ends when the parent ends.
    """
    code = 1
    try:
        _be_alone(parent)
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        with _output_to(folder):
            # Write the traceback of a crash in a native library to run.log.
            faulthandler.enable()
            returned = run_in_hydra(
                # The function that Hydra was given would find the job in sweep.json, which may have thousands.
                task_function=lambda _: run_known(job.config),
                config=job_config(job, bases),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=parts.context,
            )
            if returned.status == JobStatus.COMPLETED:
                code = 0
            elif is_full_disk(value_or_error(returned)):
                code = DISK_FULL_EXIT
            elif isinstance(value_or_error(returned), LockedError):
                code = LOCKED_EXIT
    except Interrupted as error:
        code = error.exit_code
    except BaseException as error:
        # An error of Hydra's callbacks, logging or folders; an error of the run itself is already in its summary.
        from grulab.sweep.status import record_failure

        if is_full_disk(error):
            code = DISK_FULL_EXIT
        else:
            logging.getLogger(__name__).exception("the job failed outside its run")
            record_failure(folder, job.config, type(error).__name__, str(error))
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


def _be_alone(parent: int) -> None:
    """Leave the terminal's process group, and end when the parent process ends for any reason."""
    os.setsid()
    end_with_parent(parent)

    def stop(signum: int, frame: Any) -> None:
        raise Interrupted(signum)

    # Effective until the run installs its own handlers.
    install_handler(stop)
    restore_default_pauses()
    unblock_signals()


@contextmanager
def _output_to(folder: Path) -> Iterator[None]:
    """Redirect the output of the job and of native libraries to run.log, because the terminal shows the sweep."""
    sys.stdout.flush()
    sys.stderr.flush()
    # If there can be no run.log, the terminal is still the sweep's, which says what is wrong with the folder.
    _redirect_to(os.open(os.devnull, os.O_WRONLY))
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    _redirect_to(os.open(folder / RUN_LOG, flags, 0o644))
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    yield
    sys.stdout.flush()
    sys.stderr.flush()


def _redirect_to(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
