"""The callback that writes best.ckpt and last.ckpt during training."""

import sys
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from grulab.config.schema import Config, is_higher_better
from grulab.internals.lightning import finished_epochs_and_batches, set_between_batches
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import KEY, load
from grulab.run_folder.checkpoint_folder import put_in_place
from grulab.run_folder.paths import BEST
from grulab.training.callbacks.graceful_stop import GracefulStop
from grulab.training.early_stopping import is_trained
from grulab.training.module import SequenceClassifier


class Checkpointer(Checkpoint):
    """Keeps the best epoch by the monitored metric in best.ckpt, and the newest state in last.ckpt.

    Of epochs with the same metric, the one with the lowest validation loss is the best: the accuracy of a few hundred
    sequences is often the same for many epochs while the loss goes on falling (issue 13).

    Since version 2.6, Lightning's ModelCheckpoint writes ``save_last`` only together with a new best, so its last is
    a copy of its best; this callback writes the two independently. Lightning calls Checkpoint callbacks after all
    others, so an epoch's curves are on disk when its checkpoint is written. The files hold plain types only and open
    with ``weights_only=True``.

    Args:
        folder: the folder of the checkpoints.
        config: the run's configuration; it is stored in the checkpoint, so that the file can be used alone.
        graceful_stop: the callback that requests to save the state and stop the run.
        metadata: of the task; it is stored too, so that the file can read sequences like those of the run.
    """

    def __init__(self, folder: Path, config: Config, graceful_stop: GracefulStop, metadata: dict[str, Any]) -> None:
        self._folder = folder
        self._config = config
        self._graceful_stop = graceful_stop
        self._metadata = metadata
        self.best_score: float | None = None
        self.best_loss: float | None = None
        self.best_epoch: int | None = None
        self.best_step: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write last.ckpt inside an epoch: every ``every_n_steps`` steps, and when the run has to stop."""
        every = self._config.checkpoint.every_n_steps
        # on_train_epoch_end writes the checkpoint after the last batch.
        is_due = every and trainer.global_step % every == 0 and batch_idx + 1 < trainer.num_training_batches
        if is_due or self._graceful_stop.requested:
            self._write(trainer, is_best=False, is_last=True)
        self._graceful_stop.check()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Write last.ckpt if the run has to stop; a resume repeats the validation of the epoch."""
        if self._graceful_stop.requested:
            self._write(trainer, is_best=False, is_last=True)
        self._graceful_stop.check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write best.ckpt after a new best, last.ckpt when it is due, and stop at the end of training."""
        module = cast(SequenceClassifier, pl_module)
        values = module.val_metrics.compute()
        score, loss = values[self._config.checkpoint.monitor.removeprefix("val/")], values["loss"]
        epoch = trainer.current_epoch + 1
        is_best = self._is_better(score, loss)
        if is_best:
            self.best_score, self.best_loss = score, loss
            self.best_epoch, self.best_step = epoch, trainer.global_step
        ends = trainer.should_stop or is_trained(self._config, epoch, self.best_epoch, self.best_score)
        trainer.should_stop = ends
        is_last = epoch % self._config.checkpoint.every_n_epochs == 0 or ends or self._graceful_stop.requested
        self._write(trainer, is_best, is_last)
        self._graceful_stop.check()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add configuration, task, and the numbers of finished epochs and of finished batches in the next."""
        set_between_batches(trainer, checkpoint)
        epochs, batches = finished_epochs_and_batches(trainer)
        checkpoint[KEY] = {
            "config": self._config.to_dict(),
            "epochs": epochs,
            "batches": batches,
            "task": self._metadata,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far, with its score, its validation loss and its step."""
        return {
            "best_score": self.best_score,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch so far."""
        self.best_score = state_dict["best_score"]
        self.best_loss = state_dict["best_loss"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_step = state_dict["best_step"]

    def load_best(self) -> dict[str, Any]:
        """Return the checkpoint of the best epoch.

        Raises:
            DamagedCheckpointError: if the file is damaged, or holds a later epoch: the run crashed after that epoch
                and was resumed with a smaller ``max_epochs``, so the epoch is not trained again.
        """
        # This run has written it, so it is no larger than this run's memory.
        content = load(self._folder / BEST, sys.maxsize)
        if content[KEY]["epochs"] != self.best_epoch:
            raise DamagedCheckpointError(
                f"{self._folder / BEST}: holds epoch {content[KEY]['epochs']}, but the best so far is "
                f"{self.best_epoch}; go on to epoch {content[KEY]['epochs']} at least"
            )
        return content

    def _is_better(self, score: float, loss: float) -> bool:
        if self.best_score is None or self.best_loss is None:
            return True
        if score == self.best_score:
            return loss < self.best_loss
        higher = is_higher_better(self._config.checkpoint.monitor)
        return score > self.best_score if higher else score < self.best_score

    def _write(self, trainer: L.Trainer, is_best: bool, is_last: bool) -> None:
        """Write the checkpoint once, then store it as best.ckpt, last.ckpt or both."""
        if not (is_best or is_last):
            return
        temporary = self._folder / ".writing.ckpt"
        trainer.save_checkpoint(temporary)
        put_in_place(temporary, is_best, is_last, is_urgent=self._graceful_stop.requested)
