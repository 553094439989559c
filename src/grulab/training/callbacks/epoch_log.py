"""After every epoch: a row of metrics.csv, a point on every curve, a line in the log."""

import csv
import io
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L

from grulab.run_folder.atomic import write_atomically
from grulab.run_folder.tensorboard import CEILING, CHANCE, RunLogger
from grulab.training.callbacks.base import RunCallback
from grulab.training.module import SequenceClassifier

FILE_NAME = "metrics.csv"
CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")
COLUMNS = ("epoch", "step", *CURVES, "seconds")

log = logging.getLogger(__name__)


class Recorder(RunCallback):
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
        self._rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the table so far: the checkpoint can make metrics.csv and the curves again."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the table."""
        self._rows = list(state_dict["rows"])

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
        self._rows.append(row)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        self._draw(trainer, {tag: row[tag] for tag in CURVES} | self._bounds, trainer.global_step)
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
    def _draw(trainer: L.Trainer, curves: Mapping[str, float], step: int) -> None:
        logger = cast(RunLogger, trainer.logger)
        logger.log_metrics(dict(curves), step)
        # Whoever watches sees the epoch now.
        logger.save()


def write_table(run_dir: Path, rows: list[dict[str, float]]) -> None:
    """Write metrics.csv anew, in place of whatever a crash or somebody left of it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(run_dir / FILE_NAME, text.getvalue())


def count_rows(run_dir: Path) -> int:
    """Return how many epochs metrics.csv tells of."""
    path = run_dir / FILE_NAME
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def curves(rows: list[dict[str, float]], chance: float, ceiling: float) -> dict[tuple[str, int], float]:
    """Return what a table's rows are in TensorBoard: the value of each (tag, step)."""
    points = {(tag, int(row["step"])): row[tag] for row in rows for tag in CURVES}
    steps = [0, *(int(row["step"]) for row in rows)] if rows else []
    return points | {(tag, step): bound for tag, bound in ((CHANCE, chance), (CEILING, ceiling)) for step in steps}
