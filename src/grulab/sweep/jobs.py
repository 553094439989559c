"""From what Hydra hands to a launcher to jobs."""

import copy
from dataclasses import dataclass

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from grulab.composition import Job, checked


@dataclass(frozen=True)
class HydraParts:
    """What Hydra hands to a launcher."""

    context: HydraContext
    task_function: TaskFunction
    config: DictConfig


def job_config(parts: HydraParts, job: Job) -> DictConfig:
    """Return a job's configuration as Hydra's launchers make it, with the values that the sweep began with."""
    config: DictConfig = parts.context.config_loader.load_sweep_config(parts.config, list(job.overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = job.number
        # The files in conf/ may have been edited since.
        for key, value in job.config.to_dict().items():
            OmegaConf.update(config, key, value, merge=False)
        handlers = config.hydra.job_logging.root.handlers
        if len(handlers) > 1 and "console" in handlers:
            # What goes there is in run.log already.
            handlers.remove("console")
    return config


def compose_job(parts: HydraParts, overrides: list[str], number: int) -> Job:
    """Return a job that no manifest knows of, as Hydra composes it now.

    Raises:
        ConfigError: if its configuration is wrong.
    """
    config: DictConfig = parts.context.config_loader.load_sweep_config(parts.config, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    folder = str(config.hydra.sweep.subdir)
    return Job(number, folder, overrides, checked(copy.deepcopy(config)))
