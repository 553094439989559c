"""Compose the configurations of a sweep's jobs with Hydra, in the process of the launcher."""

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from grulab.config.compose import checked, plain_values
from grulab.config.overrides import parse_overrides, structure_of
from grulab.config.same_run import flatten
from grulab.config_error import ConfigError
from grulab.internals.hydra import get_overrides_dirname, value_or_error
from grulab.run_folder.full_disk import is_full_disk
from grulab.sweep import manifest
from grulab.sweep.failures import JobNotRunError, SweepFailedError
from grulab.sweep.job import Job

# Composed configurations, by the overrides that do more than set a value; see structure_of(). They are pickled, since
# each job needs a copy of its own, and copy.deepcopy takes four times as long as pickle.loads.
Bases = dict[tuple[str, ...], bytes]


@dataclass(frozen=True)
class HydraParts:
    """The arguments that Hydra passes to a launcher."""

    context: HydraContext
    task_function: TaskFunction
    config: DictConfig


def compose_bases(parts: HydraParts, jobs: Iterable[Job]) -> Bases:
    """Return one configuration, which Hydra composes in 60 ms, for each group of jobs that differ in values only."""
    bases: Bases = {}
    for job in jobs:
        structure = structure_of(job.overrides)
        if structure not in bases:
            bases[structure] = pickle.dumps(
                parts.context.config_loader.load_sweep_config(parts.config, list(structure))
            )
    return bases


def job_config(job: Job, parts: HydraParts, bases: Bases) -> DictConfig:
    """Return the configuration of a job as Hydra's launchers make it, with the values from the start of the sweep.

    It is a new one each time; ``bases`` is extended if need be.
    """
    structure = structure_of(job.overrides)
    if structure not in bases:
        # A job that a search has proposed since this process was forked.
        bases |= compose_bases(parts, [job])
    config: DictConfig = pickle.loads(bases[structure])
    with open_dict(config):
        hydra = config.hydra
        hydra.job.id = hydra.job.num = job.number
        hydra.overrides.task = job.overrides
        naming = hydra.job.config.override_dirname
        hydra.job.override_dirname = get_overrides_dirname(
            parse_overrides(job.overrides),
            naming.exclude_keys,
            naming.item_sep,
            naming.kv_sep,
        )
        hydra.sweep.subdir = job.folder
        # Set the values in which the jobs of a group differ, and restore values edited in conf/ after the start.
        for key, value in flatten(job.config.to_dict()).items():
            if OmegaConf.select(config, key) != value:
                OmegaConf.update(config, key, value)
        handlers = hydra.job_logging.root.handlers
        if len(handlers) > 1 and "console" in handlers:
            # Standard output of the job goes to run.log, so the console handler would repeat each line there.
            handlers.remove("console")
    return config


def compose_job(parts: HydraParts, overrides: list[str], number: int) -> Job:
    """Return a job that sweep.json does not list, as Hydra composes it now.

    Raises:
        ConfigError: if its configuration is not valid.
    """
    config: DictConfig = parts.context.config_loader.load_sweep_config(parts.config, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    folder = str(config.hydra.sweep.subdir)
    return Job(number, folder, overrides, checked(plain_values(config)))


def launched_jobs(parts: HydraParts, job_overrides: list[list[str]], first_number: int) -> list[Job]:
    """Return the jobs as stored in sweep.json; add jobs that the sweeper has chosen while it runs.

    Raises:
        ConfigError: if an added job has the number of another job, or its folder.
    """
    sweep_dir = Path(parts.config.hydra.sweep.dir)
    known = manifest.read(sweep_dir)
    jobs = {job.number: job for job in known.jobs} if known else {}
    new = []
    for number, overrides in enumerate(job_overrides, start=first_number):
        if number in jobs and jobs[number].overrides == overrides:
            continue
        job = compose_job(parts, overrides, number)
        if number in jobs:
            manifest.refuse_another_sweep(sweep_dir, [jobs[number]], [job])
        elif other := next((other for other in jobs.values() if other.folder == job.folder), None):
            raise ConfigError(
                f"hydra.sweep.subdir: jobs {other.number} and {number} would share the folder {job.folder}; "
                "name what differs, or ${hydra.job.num}"
            )
        jobs[number] = job
        new.append(job)
    if known and new:
        manifest.write(sweep_dir, replace(known, jobs=[jobs[number] for number in sorted(jobs)]))
    return [jobs[number] for number in range(first_number, first_number + len(job_overrides))]


def refuse_failed(returned: Sequence[JobReturn], sweep_dir: Path, jobs: int | None = None) -> None:
    """Check that all jobs of a sweep are done.

    Args:
        returned: the result of each job that was launched.
        sweep_dir: the sweep's folder.
        jobs: the number of jobs; None takes that of sweep.json.

    Raises:
        SweepFailedError: if a job failed, with the numbers of failed jobs and of those that were not started.
    """
    failed = [job for job in returned if job.status == JobStatus.FAILED]
    if not failed:
        return
    if jobs is None:
        known = manifest.read(sweep_dir)
        jobs = len(known.jobs) if known else len(returned)
    skipped = sum(isinstance(value_or_error(job), JobNotRunError) for job in failed)
    not_run = skipped + jobs - len(returned)
    is_disk_full = any(is_full_disk(value_or_error(job)) for job in failed)
    raise SweepFailedError(len(failed) - skipped, not_run, jobs, sweep_dir, is_disk_full)
