"""Private parts of Lightning, read in version 2.6.6."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler

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
    "SilentProfiler",
    "TrainingEpochLoop",
    "finished_epochs_and_batches",
    "next_epoch_and_batch",
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


def set_between_batches(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Set the counters in a checkpoint so that the batch is completed and nothing after it has started.

    Inside ``on_train_batch_end`` Lightning still counts the batch as unfinished. After the epoch's last batch the
    whole validation follows; Lightning represents this by a started validation with no completed batch. Between two
    epochs there is nothing to change.

    Args:
        trainer: the trainer that writes the checkpoint.
        checkpoint: the content of the checkpoint, which is changed in place.
    """
    epoch, _ = _progress(trainer)
    if epoch.ready == epoch.processed:
        return
    fit_loop = checkpoint["loops"]["fit_loop"]
    batches = fit_loop["epoch_loop.batch_progress"]
    for counts in (batches["current"], batches["total"]):
        counts["completed"] = counts["processed"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    started = int(batches["is_last_batch"])
    for counts in (validation["current"], validation["total"]):
        counts.update(ready=started, started=started, processed=0, completed=0)
    validation["is_last_batch"] = False


def _progress(trainer: L.Trainer) -> "tuple[_ProcessedTracker, _ProcessedTracker]":
    fit_loop: Any = trainer.fit_loop
    return fit_loop.epoch_progress.current, fit_loop.epoch_loop.batch_progress.current
