"""The progress of one job of a running sweep."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from grulab.config.schema import is_higher_better
from grulab.run_folder.full_disk import DiskFullError
from grulab.run_folder.metrics_csv import read_column
from grulab.sweep.failures import DISK_FULL_CAUSE, JobFailedError, JobNotRunError
from grulab.sweep.job import Job
from grulab.sweep.status import cause_of, obstacle_in, result_of
from grulab.system.active_time import active_time


@dataclass
class JobProgress:
    """The state of one job of a running sweep.

    Attributes:
        job: number, folder, overrides and configuration of the job.
        folder: path of the job's folder.
        state: pending, running, interrupted, failed or done; "done before" if an earlier launch finished it.
        cause: cause of a failure, in one line.
        score: monitored metric of the best epoch; None until the job is done.
        attempts: number of attempts that were started.
        began: start of the current attempt, by :func:`active_time`.
        seconds: duration of all finished attempts.
        epochs: number of finished epochs.
        best: best value of the monitored metric so far.
        epochs_before: number of finished epochs at the start of the current attempt.
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

    def look_before(self, sweep_dir: Path, given_up: Container[int]) -> None:
        """Set the state before the launch: done before, failed if it cannot be or is given up, or else pending."""
        self.score = result_of(self.folder, self.job.config)
        self.state = "pending" if self.score is None else "done before"
        if self.score is None and (obstacle := obstacle_in(self.folder, sweep_dir)):
            self.state, self.cause = "failed", obstacle
            print(f"failed  {self.job.folder}  {obstacle}")
        elif self.score is None and self.job.number in given_up:
            self.state, self.cause = "failed", cause_of(self.folder, self.job.config)

    def update(self) -> None:
        """Read the number of epochs and the best metric from metrics.csv."""
        monitor = self.job.config.checkpoint.monitor
        values = read_column(self.folder, monitor)
        best = max if is_higher_better(monitor) else min
        self.epochs, self.best = len(values), best(values, default=None)

    def start(self) -> None:
        """Start an attempt, and note the epochs that are already finished."""
        self.attempts += 1
        self.state, self.cause, self.began = "running", "", active_time()
        self.update()
        self.epochs_before = self.epochs

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the last epoch, or None before the first epoch of the attempt ends."""
        here = self.epochs - self.epochs_before
        if self.state != "running" or here <= 0:
            return None
        return (active_time() - self.began) / here * (self.job.config.trainer.max_epochs - self.epochs)

    def returned(self) -> JobReturn:
        """Return what a launcher of Hydra returns: the monitored metric, or the error."""
        returned = JobReturn(overrides=self.job.overrides, working_dir=str(self.folder), task_name="grulab")
        is_done = self.state in ("done", "done before")
        returned.status = JobStatus.COMPLETED if is_done else JobStatus.FAILED
        returned.return_value = self.score if is_done else self._error()
        return returned

    def _error(self) -> Exception:
        if self.state == "pending":
            return JobNotRunError(self.state)
        if self.cause == DISK_FULL_CAUSE:
            return DiskFullError(self.cause)
        return JobFailedError(self.cause or self.state)
