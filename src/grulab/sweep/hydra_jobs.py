"""A sweep's jobs in the form that Hydra gives to a launcher, and their composed configurations."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from grulab.config.compose import checked
from grulab.config.overrides import parse_overrides, structure_of
from grulab.config.same_run import flatten
from grulab.internals.hydra import get_overrides_dirname
from grulab.sweep.job import Job

# The key: the overrides that do more than set a value; see structure_of().
Bases = dict[tuple[str, ...], DictConfig]


@dataclass(frozen=True)
class HydraParts:
    """The arguments that Hydra gives to a launcher."""

    context: HydraContext
    task_function: TaskFunction
    config: DictConfig


def compose_bases(parts: HydraParts, jobs: Iterable[Job]) -> Bases:
    """Return Hydra's configurations of the jobs: one, which takes 60 ms, for all jobs that differ in values alone."""
    bases: Bases = {}
    for job in jobs:
        structure = structure_of(job.overrides)
        if structure not in bases:
            bases[structure] = parts.context.config_loader.load_sweep_config(parts.config, list(structure))
    return bases


def job_config(job: Job, bases: Bases) -> DictConfig:
    """Return a job's configuration as Hydra's launchers make it, with the values that the sweep began with.

    For the job's own process: it changes what is in ``bases``.
    """
    config = bases[structure_of(job.overrides)]
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
        # The values in which alike jobs differ, and those that were edited in conf/ since the sweep began.
        for key, value in flatten(job.config.to_dict()).items():
            if OmegaConf.select(config, key) != value:
                OmegaConf.update(config, key, value)
        handlers = hydra.job_logging.root.handlers
        if len(handlers) > 1 and "console" in handlers:
            # Its lines are in run.log already.
            handlers.remove("console")
    return config


def compose_job(parts: HydraParts, overrides: list[str], number: int) -> Job:
    """Return a job that is in no manifest, as Hydra composes it now.

    Raises:
        ConfigError: if its configuration is wrong.
    """
    config: DictConfig = parts.context.config_loader.load_sweep_config(parts.config, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    folder = str(config.hydra.sweep.subdir)
    return Job(number, folder, overrides, checked(copy.deepcopy(config)))
