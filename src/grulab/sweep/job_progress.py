"""How far a job is."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from grulab.config.compose import Job


@dataclass
class Progress:
    """A job on its way.

    Attributes:
        job: what it is.
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

    def look(self) -> None:
        """Read in the job's folder how far it is."""
        # It imports Lightning, which who looks at a job that runs has done already.
        from grulab.training.callbacks.epoch_log import FILE_NAME

        monitor = self.job.config.checkpoint.monitor
        try:
            with (self.folder / FILE_NAME).open(newline="") as file:
                values = [float(row[monitor]) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError, TypeError):
            # Not there yet, or a row is being written.
            values = []
        best = min if monitor.endswith("loss") else max
        self.epochs, self.best = len(values), best(values, default=None)

    def start(self) -> None:
        """Begin an attempt, from as far as the job is."""
        self.attempts += 1
        self.state, self.cause, self.began = "running", "", time.monotonic()
        self.look()
        self.epochs_before = self.epochs

    def seconds_left(self) -> float | None:
        """Return the time until its last epoch at its pace so far, or None before its first."""
        here = self.epochs - self.epochs_before
        if self.state != "running" or here <= 0:
            return None
        return (time.monotonic() - self.began) / here * (self.job.config.trainer.max_epochs - self.epochs)
