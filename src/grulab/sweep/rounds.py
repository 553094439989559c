"""The rounds of a sweep: its jobs are launched, then those that their results ask for, until nothing follows.

What follows depends on the folders of the jobs alone. So a sweep that was killed goes on as if it had not been.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from grulab.sweep import manifest, race, rungs
from grulab.sweep.hydra_jobs import HydraParts, compose_job
from grulab.sweep.job import Job
from grulab.sweep.job_scores import has_diverged, score_at
from grulab.sweep.search import Search
from grulab.sweep.status import result_of
from grulab.sweep.sweeper_settings import GridSettings, RaceSettings, SearchSettings


def run_rounds(launcher: Launcher, parts: HydraParts, sweep_dir: Path, settings: GridSettings) -> list[JobReturn]:
    """Run the jobs in sweep.json, and those that follow from their results.

    Args:
        launcher: runs jobs; those that are done already return at once.
        parts: what Hydra passed to the sweeper.
        sweep_dir: the sweep's folder.
        settings: of the sweeper.

    Returns:
        The result of each job of the last round, which is every job of the sweep.
    """
    stops_on_failure = _stops_on_failure(parts)
    for line in rungs.notes_on_rungs(settings.rungs, settings.keep):
        print(f"note: {line}")
    told: set[str] = set()
    is_cluster = hasattr(launcher, "jobs_at_once")
    if is_cluster and settings.max_batch_size:
        print(
            f"note: hydra.sweeper.max_batch_size={settings.max_batch_size} has no effect with this launcher, whose "
            "tasks have a slice of all jobs each"
        )
    while True:
        known = manifest.read(sweep_dir)
        assert known is not None
        returned: list[JobReturn] = []
        size = len(known.jobs) if is_cluster else settings.max_batch_size or len(known.jobs)
        for start in range(0, len(known.jobs), size):
            batch = [job.overrides for job in known.jobs[start : start + size]]
            returned += launcher.launch(batch, initial_job_idx=start)
            if stops_on_failure and any(job.status == JobStatus.FAILED for job in returned):
                return returned
        failed = [job for job, result in zip(known.jobs, returned, strict=True) if result.status == JobStatus.FAILED]
        if any(not has_diverged(sweep_dir / job.folder) for job in failed):
            # It may succeed when it is tried again, and what follows would be another sweep's without it.
            return returned
        jobs = following(known.jobs, sweep_dir, settings, told)
        if jobs is None:
            return returned
        jobs = [
            job if job.folder else replace(job, folder=compose_job(parts, job.overrides, job.number).folder)
            for job in jobs
        ]
        manifest.write(sweep_dir, replace(known, jobs=jobs))


def run_search(
    launcher: Launcher, parts: HydraParts, sweep_dir: Path, settings: SearchSettings, arguments: Sequence[str]
) -> list[JobReturn]:
    """Run the jobs in sweep.json, and those that a search proposes, until it is over.

    Args:
        launcher: runs jobs; the local one asks for more whenever there is room for one, those for clusters run as
            many trials as they have room for, and then as many again, and another one runs trial by trial.
        parts: what Hydra passed to the sweeper.
        sweep_dir: the sweep's folder.
        settings: of the sweeper.
        arguments: of the command, without Hydra's keys.

    Returns:
        The result of each job.
    """

    def compose(number: int, overrides: list[str]) -> Job:
        job = compose_job(parts, overrides, number)
        return replace(job, config=rungs.at_first_rung(job.config, settings.rungs))

    for line in rungs.notes_on_rungs(settings.rungs, settings.keep):
        print(f"note: {line}")

    def at_once() -> int:
        if not hasattr(launcher, "jobs_at_once"):
            return 1
        jobs: int = launcher.jobs_at_once(parts.config.trainer.threads)
        return math.ceil(jobs / len(settings.seeds))

    monitor = str(parts.config.checkpoint.monitor)
    search = Search(sweep_dir, settings, [*settings.swept, *arguments], monitor, compose)
    if hasattr(launcher, "more"):
        launcher.more = search.more
    if outside := search.outside():
        print(f"note: {outside} trials have values that are not searched now; the sampler does not learn from them")
    while True:
        known = manifest.read(sweep_dir)
        assert known is not None
        returned: list[JobReturn] = []
        if known.jobs:
            returned = list(launcher.launch([job.overrides for job in known.jobs], initial_job_idx=0))
        failed = [Path(str(job.working_dir)) for job in returned if job.status == JobStatus.FAILED]
        # What follows depends on those that may succeed when they are tried again.
        is_stuck = any(not has_diverged(folder) for folder in failed)
        if is_stuck or (failed and _stops_on_failure(parts)) or not search.more(at_once()):
            search.write_journal()
            return returned


def _stops_on_failure(parts: HydraParts) -> bool:
    return bool(parts.config.hydra.launcher.get("on_failure") == "stop")


def following(jobs: Sequence[Job], sweep_dir: Path, settings: GridSettings, told: set[str]) -> list[Job] | None:
    """Return the jobs of the next round, and print why they follow; None if the sweep is over.

    Jobs that are added have no folder yet. Notes in ``told`` are not repeated; it is extended.
    """

    def score_of(job: Job, epochs: int) -> float | None:
        return score_at(sweep_dir / job.folder, job, epochs)

    if settings.rungs:
        promoted = rungs.promoted(jobs, score_of, settings.rungs, settings.keep, settings.tune)
        if promoted is not None:
            _tell_of_promotion(jobs, promoted)
            return promoted
        for rung, after in pairwise(settings.rungs):
            for line in rungs.note_on_agreement(jobs, score_of, rung, after):
                if line not in told:
                    told.add(line)
                    print(f"note: {line}")
    if not isinstance(settings, RaceSettings):
        return None
    # Those that were stopped at a rung are not in the race.
    last = settings.rungs[-1] if settings.rungs else None
    racing = [job for job in jobs if last in (None, job.config.trainer.max_epochs)]
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
    some, all_ = (len(rungs.configurations(jobs, is_of_rungs=True)) for jobs in ([new for _, new in pairs], reached))
    print(f"rung    {rung} epochs: {some} of {all_} configurations go on to {to}")
