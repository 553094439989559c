"""How far a job is."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from grulab.composition import Job

METRICS = "metrics.csv"


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
    """

    job: Job
    folder: Path
    state: str = "pending"
    cause: str = ""
    score: float | None = None
    attempts: int = 0
    began: float = 0.0
    seconds: float = 0.0
    epochs_before: int = 0

    def epochs(self) -> tuple[int, float | None]:
        """Return how many epochs are over, and the best value so far of the metric that says which is best."""
        monitor = self.job.config.checkpoint.monitor
        try:
            with (self.folder / METRICS).open(newline="") as file:
                values = [float(row[monitor]) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError, TypeError):
            # Not there yet, or a row is being written.
            return 0, None
        best = min if monitor.endswith("loss") else max
        return len(values), best(values, default=None)

    def seconds_left(self) -> float | None:
        """Return the time until its last epoch at its pace so far, or None before its first."""
        epochs, _ = self.epochs()
        here = epochs - self.epochs_before
        if self.state != "running" or here <= 0:
            return None
        return (time.monotonic() - self.began) / here * (self.job.config.trainer.max_epochs - epochs)
