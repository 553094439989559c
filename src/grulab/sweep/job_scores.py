"""What the folder of a job says of its configuration: how good it was after so many epochs, or that it diverged."""

from pathlib import Path

from grulab.config.schema import is_higher_better
from grulab.run_folder.metrics_csv import read_column
from grulab.run_folder.summary import read_summary
from grulab.sweep.failures import DIVERGED
from grulab.sweep.job import Job
from grulab.sweep.status import result_of


def score_at(folder: Path, job: Job, epochs: int) -> float | None:
    """Return the best of the monitored metric in the first epochs of a job that has ended them, or None."""
    monitor = job.config.checkpoint.monitor
    values = read_column(folder, monitor)
    # Early stopping ends a job before.
    if len(values) < epochs and result_of(folder, job.config) is None:
        return None
    best = max if is_higher_better(monitor) else min
    return best(values[:epochs], default=None)


def has_diverged(folder: Path) -> bool:
    """Return whether a failure is the configuration's own, and not that of a machine or of somebody's kill."""
    error = (read_summary(folder) or {}).get("error") or {}
    return bool(error.get("type") == DIVERGED)
