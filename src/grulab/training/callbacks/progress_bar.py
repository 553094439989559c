"""A progress bar, shown on a terminal only."""

import logging
import sys
import time
from typing import Any, TextIO, cast

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from grulab.training.module import SequenceClassifier

_SECONDS_BETWEEN_UPDATES = 0.25


class ProgressBar(L.Callback):
    """Shows the epoch, its mean loss and accuracy so far, and the time left.

    It checks the clock in each step, but reads the metrics only four times a second, because reading them makes the
    CPU wait for an accelerator.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._stream = sys.stdout
        self._handlers: list[logging.StreamHandler[TextIO]] = []
        self._due = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar if the output is a terminal."""
        self._stream = sys.stdout
        if not self._stream.isatty():
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            # No refresh thread, because DataLoader workers are forked from this process.
            auto_refresh=False,
            transient=True,
        )
        total = trainer.num_training_batches * cast(int, trainer.max_epochs)
        self._progress.add_task("", total=total, completed=trainer.global_step, metrics="")
        self._progress.start()
        # Rich replaces sys.stdout and prints its text above the bar; log handlers still hold the previous stream.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                handler.setStream(sys.stdout)
                self._handlers.append(handler)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Update the bar if an update is due."""
        if self._progress is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _SECONDS_BETWEEN_UPDATES
        means = cast(SequenceClassifier, pl_module).train_metrics.compute()
        task = self._progress.task_ids[0]
        self._progress.update(
            task,
            description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            completed=trainer.global_step,
            metrics=f"loss {means['loss']:.4f} accuracy {means['accuracy']:.3f}",
            refresh=True,
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        while self._handlers:
            self._handlers.pop().setStream(self._stream)
