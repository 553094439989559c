"""Private parts of Lightning, read in version 2.6.6."""

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.connectors import callback_connector

if TYPE_CHECKING:
    from lightning.pytorch.loops.fetchers import _DataFetcher as DataFetcher
    from lightning.pytorch.loops.progress import _ProcessedTracker
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop
else:

    def __getattr__(name: str) -> Any:
        """Import the private loop on first use, so that runs with Lightning's own loop do not need it."""
        if name == "TrainingEpochLoop":
            from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

            return _TrainingEpochLoop
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DataFetcher",
    "OneProcess",
    "SilentProfiler",
    "TrainingEpochLoop",
    "act_as_rank_zero",
    "finished_epochs_and_batches",
    "next_epoch_and_batch",
    "note_missing_external_callbacks",
    "set_between_batches",
    "why_not_fast",
]

# The versions with which the fast training loop was tested; see :func:`why_not_fast`.
TESTED_VERSIONS = ("2.6.6",)

_NOTHING = nullcontext()


def why_not_fast() -> str | None:
    """Return a line that says why trainer.loop=fast runs Lightning's own loop here, or None if the fast one runs."""
    if L.__version__ in TESTED_VERSIONS:
        return None
    return (
        f"trainer.loop=fast was tested with Lightning {', '.join(TESTED_VERSIONS)} and not with {L.__version__}: "
        "Lightning's own loop runs, with the same numbers in more time"
    )


def note_missing_external_callbacks() -> None:
    """Let a Trainer look for the callbacks that other packages register only if there are some.

    The search through the metadata of all installed packages takes 5 ms, and the jobs of a sweep are forked from a
    process that has done it. The factories of those that are found have to be called for each Trainer.
    """
    connector: Any = callback_connector
    if not connector._load_external_callbacks("lightning.pytorch.callbacks_factory"):
        connector._load_external_callbacks = lambda group: []


def act_as_rank_zero() -> None:
    """Give this process the rank 0: it is the only one of its run, whatever a scheduler's variables say.

    Lightning reads SLURM_PROCID, RANK, LOCAL_RANK and JSM_NAMESPACE_RANK when it is imported, and a process with
    another rank than 0 gets no logger.
    """
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


class OneProcess(LightningEnvironment):
    """The environment of a run, which is one process. Under SLURM, Lightning's own would requeue a stopped job."""

    def local_rank(self) -> int:
        """Return 0, the rank of the only process."""
        return 0


class SilentProfiler(PassThroughProfiler):
    """A profiler that does nothing, without Lightning's generator for each of the 80 actions of a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


def next_epoch_and_batch(trainer: L.Trainer) -> tuple[int, int]:
    """Return the trainer's current epoch, from 0, and the number of its batches that were fetched already."""
    epoch, batches = _progress(trainer)
    return epoch.processed, batches.ready if epoch.ready > epoch.processed else 0


def finished_epochs_and_batches(trainer: L.Trainer) -> tuple[int, int]:
    """Return the number of finished epochs, and the number of finished batches of the next epoch."""
    epoch, batches = _progress(trainer)
    return epoch.processed, batches.processed if epoch.ready > epoch.processed else 0


@cache
def loops_of_new_trainer() -> dict[str, Any]:
    """Return the loops' part of a checkpoint as a new Trainer would write it, with all counters at 0."""
    # What a Trainer logs about itself does not concern the run.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # That there is a GPU, which is not used.
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[OneProcess()],
        )
    names = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
    loops: dict[str, Any] = {name: getattr(trainer, name).state_dict() for name in names}
    loops["fit_loop"]["epoch_loop.state_dict"] = {"_batches_that_stepped": 0}
    return loops


def set_between_batches(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Set the counters in a checkpoint so that the batch is completed and nothing after it has started.

    Inside ``on_train_batch_end`` Lightning still counts the batch as unfinished. After the epoch's last batch the
    whole validation follows; Lightning represents this by a started validation with no completed batch. Between two
    epochs only a validation that was started twice has left a trace.

    Args:
        trainer: the trainer that writes the checkpoint.
        checkpoint: the content of the checkpoint, which is changed in place.
    """
    epoch, _ = _progress(trainer)
    fit_loop = checkpoint["loops"]["fit_loop"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    if epoch.ready == epoch.processed:
        # The total is of this epoch as well, and the current count leaves out the batch of an interrupted validation.
        validation["total"] = dict(validation["current"])
        return
    batches = fit_loop["epoch_loop.batch_progress"]
    for counts in (batches["current"], batches["total"]):
        counts["completed"] = counts["processed"]
    started = int(batches["is_last_batch"])
    # Lightning counts a step after on_train_batch_end, and the last step of an epoch after the validation.
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = batches["total"]["processed"] - started
    for counts in (validation["current"], validation["total"]):
        counts.update(ready=started, started=started, processed=0, completed=0)
    validation["is_last_batch"] = False


def _progress(trainer: L.Trainer) -> "tuple[_ProcessedTracker, _ProcessedTracker]":
    fit_loop: Any = trainer.fit_loop
    return fit_loop.epoch_progress.current, fit_loop.epoch_loop.batch_progress.current
