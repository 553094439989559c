"""best.ckpt and last.ckpt."""

import os
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from grulab.config import Config
from grulab.models.classifier import SequenceClassifier

FOLDER = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
# Where a checkpoint keeps what Lightning has no place for.
KEY = "grulab"


class RunCheckpoints(Checkpoint):
    """Keeps the best epoch by the monitored metric, and the newest state whatever the metric did.

    Lightning's ModelCheckpoint writes ``save_last`` only together with a new best since 2.6, so that last is a copy
    of best; this writes them apart. Lightning calls Checkpoint callbacks after all others, so the epoch's curves are
    on disk when its checkpoint is written. Both files hold plain types only and open with ``weights_only=True``.

    Args:
        folder: of the checkpoints.
        config: of the run; the checkpoint carries it, so that it can be used alone.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.best_path = folder / BEST
        self.last_path = folder / LAST
        self._config = config
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_step: int | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what this epoch calls for."""
        module = cast(SequenceClassifier, pl_module)
        score = module.val_means.compute()[self._config.checkpoint.monitor.removeprefix("val/")]
        epoch = trainer.current_epoch + 1
        is_best = self._is_better(score)
        if is_best:
            self.best_score, self.best_epoch, self.best_step = score, epoch, trainer.global_step
        ends = epoch == trainer.max_epochs or trainer.should_stop
        is_due = epoch % self._config.checkpoint.every_n_epochs == 0 or ends
        if is_best or is_due:
            self._write(trainer, [self.best_path] * is_best + [self.last_path] * is_due)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the run's configuration."""
        checkpoint[KEY] = {"config": self._config.to_dict()}

    def state_dict(self) -> dict[str, Any]:
        """Return what has been the best so far."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what has been the best so far."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_step = state_dict["best_step"]

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return True
        higher = self._config.checkpoint.monitor == "val/accuracy"
        return score > self.best_score if higher else score < self.best_score

    @staticmethod
    def _write(trainer: L.Trainer, paths: list[Path]) -> None:
        """Serialise once; give the file its names one after the other, the last one last.

        A crash between them leaves a best.ckpt that is newer than last.ckpt: going on from last makes it again. The
        other way round the new best would be lost.
        """
        temporary = paths[0].with_name(".writing.ckpt")
        trainer.save_checkpoint(temporary)
        for path in paths[:-1]:
            link = path.with_name(".link.ckpt")
            link.unlink(missing_ok=True)
            os.link(temporary, link)
            link.replace(path)
        temporary.replace(paths[-1])
