"""What the launchers for clusters share: which jobs are left, in which slices they are, and what comes back."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn

from grulab.sweep.job import Job
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.job_scores import has_diverged


def launch_pending(
    sweep_dir: Path, jobs: Sequence[Job], given_up: set[int], run: Callable[[list[JobProgress]], None]
) -> list[JobReturn]:
    """Run the jobs of a sweep that are not done.

    Args:
        sweep_dir: the sweep's folder.
        jobs: of sweep.json.
        given_up: numbers of the jobs that have diverged in this command, which are not run again; it is extended.
        run: runs the pending ones of all jobs, and sets their states; it is not called if there are none.

    Returns:
        The result of each job.
    """
    everything = [JobProgress(job, sweep_dir / job.folder) for job in jobs]
    for progress in everything:
        progress.look_before(sweep_dir, given_up)
    if pending(everything):
        run(everything)
    given_up |= {job.job.number for job in everything if job.state == "failed" and has_diverged(job.folder)}
    return [progress.returned() for progress in everything]


def pending(jobs: Sequence[JobProgress]) -> list[JobProgress]:
    """Return the jobs that are still to be run."""
    return [job for job in jobs if job.state == "pending"]


def slices_of(jobs: Sequence[JobProgress], count: int) -> list[int]:
    """Return those of so many slices that have one of these jobs, in order."""
    return sorted({job.job.number % count for job in jobs})
