"""best.ckpt and last.ckpt: written whole, verified, and enough to go on to the bit."""

import logging
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.progress import _ProcessedTracker

from grulab.config.same_run import what_differs
from grulab.config.schema import Config
from grulab.run_folder.checkpoint_file import KEY, DamagedCheckpointError, load
from grulab.training.callbacks.base import RunCallback
from grulab.training.callbacks.graceful_stop import Interruption
from grulab.training.module import SequenceClassifier

FOLDER = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
# The one that was last.ckpt before: if the disk spoils the newest, it is the newest good one.
PREVIOUS = "last-previous.ckpt"
DAMAGED = "last-damaged"

log = logging.getLogger(__name__)


class RunCheckpoints(RunCallback, Checkpoint):
    """Keeps the best epoch by the monitored metric, and the newest state whatever the metric did.

    Lightning's ModelCheckpoint writes ``save_last`` only together with a new best since 2.6, so that last is a copy
    of best; this writes them apart. Lightning calls Checkpoint callbacks after all others, so an epoch's curves are
    on disk when its checkpoint is written. The files hold plain types only and open with ``weights_only=True``.

    Early stopping is here too, for it is nothing but the distance to the best epoch: no state of its own that could
    disagree after a resume.

    Args:
        folder: of the checkpoints.
        config: of the run; the checkpoint carries it, so that it can be used alone.
        interruption: tells when to write the state and stop.
    """

    def __init__(self, folder: Path, config: Config, interruption: Interruption) -> None:
        self.best_path = folder / BEST
        self.last_path = folder / LAST
        self._config = config
        self._interruption = interruption
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_step: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the state inside an epoch, when it is time or when the run is to stop."""
        every = self._config.checkpoint.every_n_steps
        # The end of the epoch writes its own.
        is_due = every and trainer.global_step % every == 0 and batch_idx + 1 < trainer.num_training_batches
        if is_due or self._interruption.requested:
            self._write(trainer, is_best=False, is_last=True)
        self._interruption.check()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Write the state with the validation still to be done, if the run is to stop."""
        if self._interruption.requested:
            self._write(trainer, is_best=False, is_last=True)
        self._interruption.check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what this epoch calls for."""
        module = cast(SequenceClassifier, pl_module)
        score = module.val_means.compute()[self._config.checkpoint.monitor.removeprefix("val/")]
        epoch = trainer.current_epoch + 1
        is_best = self._is_better(score)
        if is_best:
            self.best_score, self.best_epoch, self.best_step = score, epoch, trainer.global_step
        ends = trainer.should_stop or is_trained(self._config, epoch, self.best_epoch)
        trainer.should_stop = ends
        is_last = epoch % self._config.checkpoint.every_n_epochs == 0 or ends or self._interruption.requested
        self._write(trainer, is_best, is_last)
        self._interruption.check()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the run's configuration, and where in its epochs the run is."""
        progress = cast(_ProcessedTracker, trainer.fit_loop.epoch_progress.current)
        batches = cast(_ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.current)
        inside = progress.ready > progress.processed
        if inside:
            _stand_between_batches(checkpoint["loops"]["fit_loop"])
        checkpoint[KEY] = {
            "config": self._config.to_dict(),
            "epochs": progress.processed,
            "batches": batches.processed if inside else 0,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what has been the best so far."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what has been the best so far."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_step = state_dict["best_step"]

    def load_best(self) -> dict[str, Any]:
        """Return the checkpoint of the best epoch.

        Raises:
            DamagedCheckpointError: if the file is spoilt, or of a later epoch, which was trained before a crash and
                is not trained again because the run now ends before it.
        """
        content = load(self.best_path)
        if content[KEY]["epochs"] != self.best_epoch:
            raise DamagedCheckpointError(
                f"{self.best_path}: holds epoch {content[KEY]['epochs']}, but the best so far is {self.best_epoch}; "
                f"go on to epoch {content[KEY]['epochs']} at least"
            )
        return content

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return True
        higher = self._config.checkpoint.monitor == "val/accuracy"
        return score > self.best_score if higher else score < self.best_score

    def _write(self, trainer: L.Trainer, is_best: bool, is_last: bool) -> None:
        """Serialise once, then give the file its names, the last one last.

        A crash between them leaves a best.ckpt that is newer than last.ckpt: going on from last makes it again. The
        other way round the new best would be lost.

        A killed process loses nothing that it has written. A power cut may, for waiting until each file is on the
        disk takes from milliseconds to seconds; the checksum finds a spoilt file, and there is the one before. When
        the run is told to stop, the machine may go next: then it does wait.
        """
        if not (is_best or is_last):
            return
        folder = self.last_path.parent
        temporary = folder / ".writing.ckpt"
        trainer.save_checkpoint(temporary)
        if self._interruption.requested:
            _sync(temporary)
        if is_best:
            # A file of its own: a disk that spoils one of them leaves the other.
            _copy(temporary, self.best_path)
        if is_last:
            # Between the two renames there is no last.ckpt; whoever resumes then takes the one before.
            if self.last_path.exists():
                _rename(self.last_path, folder / PREVIOUS)
            _rename(temporary, self.last_path)
        else:
            temporary.unlink()
        if self._interruption.requested:
            _sync(folder)


def is_trained(config: Config, epochs: int, best_epoch: int | None) -> bool:
    """Return whether the training is over after so many epochs: at its horizon, or with patience at its end."""
    patience = config.trainer.early_stopping_patience
    lost_patience = patience is not None and best_epoch is not None and epochs - best_epoch >= patience
    return epochs >= config.trainer.max_epochs or lost_patience


def newest_good(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return last.ckpt and its content; where it is not the newest whole state, put that in its place.

    best.ckpt is a whole state too, and newer than last.ckpt if a crash came between the two.

    Returns:
        None if nothing was saved.

    Raises:
        DamagedCheckpointError: if no state is whole.
        UnsafeCheckpointError: if one asks for code.
    """
    states, damages = _states(folder)
    if not states:
        if damages:
            message = "; ".join(map(str, damages.values()))
            raise DamagedCheckpointError(f"{message}: put back a good copy, or begin anew with grulab train")
        return None
    # Whatever lies there of another run is not this one's newest state.
    first = next(iter(states.values()))
    states = {name: state for name, state in states.items() if _is_same_run(state, first)}
    newest = max(states, key=lambda name: (states[name][KEY]["epochs"], states[name][KEY]["batches"]))
    if LAST in damages:
        names = (folder / f"{DAMAGED}{number or ''}.ckpt" for number in count())
        aside = next(name for name in names if not name.exists())
        (folder / LAST).replace(aside)
        log.warning("%s; it is %s now, and %s is used", damages[LAST], aside.name, newest)
    if newest != LAST:
        _copy(folder / newest, folder / LAST)
    return folder / LAST, states[newest]


def check_best(folder: Path, content: dict[str, Any]) -> None:
    """Make sure that the best epoch of a state can be tested in the end.

    Raises:
        DamagedCheckpointError: if no file holds it.
    """
    best_epoch = content["callbacks"][RunCheckpoints.__name__]["best_epoch"]
    if best_epoch is None:
        return
    states, damages = _states(folder)
    holders = [
        name
        for name, state in states.items()
        if _is_same_run(state, content) and (state[KEY]["epochs"], state[KEY]["batches"]) == (best_epoch, 0)
    ]
    if BEST not in holders:
        if not holders:
            cause = damages.get(BEST) or f"{folder / BEST}: is missing, or of another run or epoch"
            raise DamagedCheckpointError(
                f"{cause}: put back the one of epoch {best_epoch}, which no other file holds"
            )
        _copy(folder / holders[0], folder / BEST)


def _states(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, DamagedCheckpointError]]:
    """Return the content of every whole state, last.ckpt first, and what is wrong with the others."""
    states, damages = {}, {}
    for name in (LAST, PREVIOUS, BEST):
        try:
            states[name] = load(folder / name)
        except FileNotFoundError:
            continue
        except DamagedCheckpointError as error:
            damages[name] = error
    return states, damages


def _is_same_run(state: dict[str, Any], other: dict[str, Any]) -> bool:
    return not what_differs(state[KEY]["config"], other[KEY]["config"])


def _stand_between_batches(fit_loop: dict[str, Any]) -> None:
    """Make Lightning's counters say what is true of the weights: the batch is done, and nothing after it has begun.

    Inside ``on_train_batch_end`` Lightning still counts the batch as unfinished. When the epoch's last batch is done,
    its whole validation comes next: begun, with no batch completed, is how Lightning spells that.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for counts in (batches["current"], batches["total"]):
        counts["completed"] = counts["processed"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    started = int(batches["is_last_batch"])
    for counts in (validation["current"], validation["total"]):
        counts.update(ready=started, started=started, processed=0, completed=0)
    validation["is_last_batch"] = False


def _copy(path: Path, name: Path) -> None:
    temporary = path.with_name(".copying.ckpt")
    shutil.copyfile(path, temporary)
    _rename(temporary, name)


def _rename(path: Path, name: Path) -> None:
    path.replace(name)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
