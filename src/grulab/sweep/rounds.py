"""The rounds of a sweep: its jobs are launched, then those that their results ask for, until nothing follows.

What follows depends on the folders of the jobs alone. So a sweep that was killed goes on as if it had not been.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from grulab.config.schema import is_higher_better
from grulab.run_folder.metrics_csv import read_column
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest, race, rungs
from grulab.sweep.failures import DIVERGED
from grulab.sweep.job import Job
from grulab.sweep.status import result_of
from grulab.sweep.sweeper_settings import GridSettings, RaceSettings

# (overrides of each job, number of the first) -> their results, as Hydra's launchers do it.
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]
# (number, overrides) -> the folder of a job.
NameOf = Callable[[int, list[str]], str]


def run_rounds(
    launch: Launch, name_of: NameOf, sweep_dir: Path, settings: GridSettings, stops_on_failure: bool
) -> list[JobReturn]:
    """Run the jobs in sweep.json, and those that follow from their results.

    Args:
        launch: runs jobs; those that are done already return at once.
        name_of: the folder of a job that is added.
        sweep_dir: the sweep's folder.
        settings: of the sweeper.
        stops_on_failure: whether nothing is started after a failure.

    Returns:
        The result of each job of the last round, which is every job of the sweep.
    """
    for line in rungs.notes_on_rungs(settings.rungs or []):
        print(f"note: {line}")
    while True:
        known = manifest.read(sweep_dir)
        assert known is not None
        returned: list[JobReturn] = []
        size = settings.max_batch_size or len(known.jobs)
        for start in range(0, len(known.jobs), size):
            returned += launch([job.overrides for job in known.jobs[start : start + size]], start)
            if stops_on_failure and any(job.status == JobStatus.FAILED for job in returned):
                return returned
        failed = [job for job, result in zip(known.jobs, returned, strict=True) if result.status == JobStatus.FAILED]
        if any(not _has_diverged(sweep_dir / job.folder) for job in failed):
            # It may succeed when it is tried again, and what follows would be another sweep's without it.
            return returned
        jobs = following(known.jobs, sweep_dir, settings)
        if jobs is None:
            return returned
        jobs = [job if job.folder else replace(job, folder=name_of(job.number, job.overrides)) for job in jobs]
        manifest.write(sweep_dir, replace(known, jobs=jobs))


def following(jobs: Sequence[Job], sweep_dir: Path, settings: GridSettings) -> list[Job] | None:
    """Return the jobs of the next round, and print why they follow; None if the sweep is over.

    Jobs that are added have no folder yet.
    """

    def score_at(job: Job, epochs: int) -> float | None:
        return _score_at(sweep_dir / job.folder, job, epochs)

    if settings.rungs:
        promoted = rungs.promoted(jobs, score_at, settings.rungs, settings.keep, settings.tune)
        if promoted is not None:
            _tell_of_promotion(jobs, promoted)
            return promoted
        for rung, after in pairwise(settings.rungs):
            for line in rungs.note_on_agreement(jobs, score_at, rung, after):
                print(f"note: {line}")
    if not isinstance(settings, RaceSettings):
        return None
    # Those that were stopped at a rung are not in the race.
    last = max(job.config.trainer.max_epochs for job in jobs)
    racing = [job for job in jobs if job.config.trainer.max_epochs == last]
    results = {job.number: result_of(sweep_dir / job.folder, job.config) for job in racing}
    scores = {number: result for number, result in results.items() if result is not None}
    left, out, found = race.standing(racing, scores, settings.indifference)
    more, why = race.next_round(jobs, left, found.seeds), found.why
    if not why and len(more) > settings.max_jobs:
        why = f"the next round would make {len(more)} jobs, and hydra.sweeper.max_jobs={settings.max_jobs}"
    print(f"race    {len(left)} of {len(left) + len(out)} configurations are left" + f"; over: {why}" * bool(why))
    return None if why else more


def _tell_of_promotion(before: Sequence[Job], after: Sequence[Job]) -> None:
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.config != new.config]
    rung, to = (job.config.trainer.max_epochs for job in pairs[0])
    reached = [job for job in before if job.config.trainer.max_epochs >= rung]
    some, all_ = (len(rungs.configurations(jobs)) for jobs in ([new for _, new in pairs], reached))
    print(f"rung    {rung} epochs: {some} of {all_} configurations go on to {to}")


def _has_diverged(folder: Path) -> bool:
    """Return whether a failure is the configuration's own, and not that of a machine or of somebody's kill."""
    error = (read_summary(folder) or {}).get("error") or {}
    return bool(error.get("type") == DIVERGED)


def _score_at(folder: Path, job: Job, epochs: int) -> float | None:
    """Return the best of the monitored metric in the first epochs of a job that has ended them, or None."""
    monitor = job.config.checkpoint.monitor
    values = read_column(folder, monitor)
    # Early stopping ends a job before.
    if len(values) < epochs and result_of(folder, job.config) is None:
        return None
    best = max if is_higher_better(monitor) else min
    return best(values[:epochs], default=None)
