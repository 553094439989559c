"""After every epoch: a row of metrics.csv, a point on every curve, a line in the log."""

import csv
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import lightning as L

from grulab.models.classifier import SequenceClassifier
from grulab.tracking.files import write_atomically
from grulab.tracking.tensorboard import CEILING, CHANCE, RunLogger

FILE_NAME = "metrics.csv"
COLUMNS = ("epoch", "step", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "seconds")

log = logging.getLogger(__name__)


class Recorder(L.Callback):
    """Writes down every epoch in the run's folder and on its curves.

    Args:
        run_dir: the run's folder.
        chance: the task's chance level, drawn beside the accuracy.
        ceiling: the task's ceiling, likewise.
        is_new: whether this is the run's beginning.
    """

    def __init__(self, run_dir: Path, chance: float, ceiling: float, is_new: bool) -> None:
        self._path = run_dir / FILE_NAME
        self._bounds = {CHANCE: chance, CEILING: ceiling}
        self._is_new = is_new
        self._began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the bounds from step 0 on, before there is anything to compare with them."""
        self._began = time.perf_counter()
        if self._is_new:
            self._draw(trainer, self._bounds, 0)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the time."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch down; its validation is over."""
        module = cast(SequenceClassifier, pl_module)
        train, val = module.train_means.compute(), module.val_means.compute()
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train/loss": train["loss"],
            "train/accuracy": train["accuracy"],
            "val/loss": val["loss"],
            "val/accuracy": val["accuracy"],
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._began, 3),
        }
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        curves = {tag: row[tag] for tag in COLUMNS if tag not in ("epoch", "step", "seconds")}
        self._draw(trainer, curves | self._bounds, trainer.global_step)
        log.info(
            "epoch %*d/%s  train loss %#.4g acc. %.3f  val loss %#.4g acc. %.3f  %.1f s",
            len(str(trainer.max_epochs)),
            row["epoch"],
            trainer.max_epochs,
            train["loss"],
            train["accuracy"],
            val["loss"],
            val["accuracy"],
            row["seconds"],
        )

    @staticmethod
    def cut_back(run_dir: Path, epochs: int) -> int:
        """Make metrics.csv end with an epoch, whatever was written of later ones.

        Returns:
            The step at that epoch's end; 0 for epoch 0, which is an empty table.
        """
        path = run_dir / FILE_NAME
        rows = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                # The last line may have been cut by a crash.
                rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)][1:]
        rows = [row for row in rows if row[0].isdigit() and int(row[0]) <= epochs]
        lines = [",".join(row) + "\r\n" for row in [list(COLUMNS), *rows]]
        write_atomically(path, "".join(lines))
        return int(rows[-1][1]) if rows else 0

    @staticmethod
    def _draw(trainer: L.Trainer, curves: Mapping[str, float], step: int) -> None:
        logger = cast(RunLogger, trainer.logger)
        logger.log_metrics(dict(curves), step)
        # Whoever watches sees the epoch now.
        logger.save()
