"""Record every epoch: a row of metrics.csv, a point on every TensorBoard curve, and a line in the log."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L

from grulab.config.schema import Schedule
from grulab.run_folder.metrics_csv import CURVES, append_row
from grulab.run_folder.tensorboard_logger import BASELINES, CEILING, CHANCE, RunLogger
from grulab.training.module import SequenceClassifier

log = logging.getLogger(__name__)


class EpochLog(L.Callback):
    """Records every epoch in metrics.csv, in TensorBoard and in the log.

    Args:
        run_dir: the run's folder.
        tags: the columns of metrics.csv that are drawn; see :func:`drawn_tags`.
        bounds: the task's bounds, drawn beside the accuracy; see :func:`task_bounds`.
        is_new: whether the run starts from the beginning.
    """

    def __init__(self, run_dir: Path, tags: Sequence[str], bounds: Mapping[str, float], is_new: bool) -> None:
        self._run_dir = run_dir
        self._tags = tags
        self._bounds = bounds
        self._is_new = is_new
        self._began = 0.0
        self._rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far: a resume rewrites metrics.csv and the curves from the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the bounds at step 0 of a new run, before the first epoch has a result."""
        self._began = time.perf_counter()
        if self._is_new:
            self._draw(trainer, self._bounds, 0)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the epoch; Lightning calls this hook after the validation."""
        module = cast(SequenceClassifier, pl_module)
        train, val = module.train_metrics.compute(), module.val_metrics.compute()
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train/loss": train["loss"],
            "train/accuracy": train["accuracy"],
            "val/loss": val["loss"],
            "val/accuracy": val["accuracy"],
            "val/balanced_accuracy": val["balanced_accuracy"],
            "val/macro_f1": val["macro_f1"],
            "lr": module.learning_rate,
            "seconds": round(time.perf_counter() - self._began, 3),
        }
        self._rows.append(row)
        append_row(self._run_dir, row)
        self._draw(trainer, {tag: row[tag] for tag in self._tags} | dict(self._bounds), trainer.global_step)
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
        # Flush, so that TensorBoard shows the epoch at once.
        logger.save()


def drawn_tags(schedule: Schedule) -> list[str]:
    """Return the columns of metrics.csv that are TensorBoard curves: the learning rate is one where it changes."""
    return [tag for tag in CURVES if tag != "lr" or schedule != "constant"]


def curves(
    rows: list[dict[str, float]], tags: Sequence[str], bounds: Mapping[str, float]
) -> dict[tuple[str, int], float]:
    """Return the TensorBoard points for the rows of metrics.csv: the value for each (tag, step).

    Args:
        rows: the rows of metrics.csv.
        tags: the columns that are drawn.
        bounds: the task's bounds; see :func:`task_bounds`.
    """
    points = {(tag, int(row["step"])): row[tag] for row in rows for tag in tags}
    steps = [0, *(int(row["step"]) for row in rows)] if rows else []
    return points | {(tag, step): bound for tag, bound in bounds.items() for step in steps}


def task_bounds(chance: float, ceiling: float | None, baselines: Mapping[str, float]) -> dict[str, float]:
    """Return the bounds by TensorBoard tag: the task's chance level, its ceiling if it is known, and the baselines.

    Args:
        chance: the task's chance level.
        ceiling: the task's ceiling, or None.
        baselines: the validation accuracy of each baseline, by its name.
    """
    bounds = {CHANCE: chance} | ({} if ceiling is None else {CEILING: ceiling})
    return bounds | {f"{BASELINES}/{name}": accuracy for name, accuracy in baselines.items()}
