"""The progress of one job of a running sweep."""

import time
from dataclasses import dataclass
from pathlib import Path

from grulab.config.schema import is_higher_better
from grulab.run_folder.metrics_csv import read_column
from grulab.sweep.job import Job


@dataclass
class JobProgress:
    """A job on its way.

    Attributes:
        job: its configuration and place in the sweep.
        folder: its own.
        state: pending, running, interrupted, failed or done; or "done before", in an earlier part of the sweep.
        cause: of a failure, in a line.
        score: the monitored metric of the best epoch, when it is done.
        attempts: how often it was started.
        began: by the monotonic clock.
        seconds: all attempts together.
        epochs: how many are over.
        best: so far, of the monitored metric.
        epochs_before: how many were over when the attempt began.
    """

    job: Job
    folder: Path
    state: str = "pending"
    cause: str = ""
    score: float | None = None
    attempts: int = 0
    began: float = 0.0
    seconds: float = 0.0
    epochs: int = 0
    best: float | None = None
    epochs_before: int = 0

    def update(self) -> None:
        """Read in the job's folder how far it is."""
        monitor = self.job.config.checkpoint.monitor
        values = read_column(self.folder, monitor)
        best = max if is_higher_better(monitor) else min
        self.epochs, self.best = len(values), best(values, default=None)

    def start(self) -> None:
        """Begin an attempt, from as far as the job is."""
        self.attempts += 1
        self.state, self.cause, self.began = "running", "", time.monotonic()
        self.update()
        self.epochs_before = self.epochs

    def seconds_left(self) -> float | None:
        """Return the time until its last epoch at its pace so far, or None before its first."""
        here = self.epochs - self.epochs_before
        if self.state != "running" or here <= 0:
            return None
        return (time.monotonic() - self.began) / here * (self.job.config.trainer.max_epochs - self.epochs)
