"""After every epoch: a row of metrics.csv, a point on every curve, a line in the log."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L

from grulab.run_folder.metrics_csv import CURVES, append_row
from grulab.run_folder.tensorboard import CEILING, CHANCE, RunLogger
from grulab.training.module import SequenceClassifier

log = logging.getLogger(__name__)


class EpochLog(L.Callback):
    """Writes down every epoch in the run's folder and on its curves.

    Args:
        run_dir: the run's folder.
        bounds: of the task, drawn beside the accuracy; see :func:`task_bounds`.
        is_new: whether this is the run's beginning.
    """

    def __init__(self, run_dir: Path, bounds: Mapping[str, float], is_new: bool) -> None:
        self._run_dir = run_dir
        self._bounds = bounds
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
        train, val = module.train_metrics.compute(), module.val_metrics.compute()
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
        append_row(self._run_dir, row)
        self._draw(trainer, {tag: row[tag] for tag in CURVES} | dict(self._bounds), trainer.global_step)
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
        # A person who watches sees the epoch now.
        logger.save()


def curves(rows: list[dict[str, float]], bounds: Mapping[str, float]) -> dict[tuple[str, int], float]:
    """Return the points that the rows of a table have in TensorBoard: the value of each (tag, step).

    Args:
        rows: of metrics.csv.
        bounds: of the task; see :func:`task_bounds`.
    """
    points = {(tag, int(row["step"])): row[tag] for row in rows for tag in CURVES}
    steps = [0, *(int(row["step"]) for row in rows)] if rows else []
    return points | {(tag, step): bound for tag, bound in bounds.items() for step in steps}


def task_bounds(chance: float, ceiling: float | None) -> dict[str, float]:
    """Return the curves beside the accuracy: the task's chance level, and its ceiling where it is known."""
    return {CHANCE: chance} | ({} if ceiling is None else {CEILING: ceiling})
