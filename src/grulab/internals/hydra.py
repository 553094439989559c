"""Private parts of Hydra, read in version 1.3.8."""

import os
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, _flush_loggers, _save_config, configure_log, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

__all__ = [
    "BASIC_SWEEPER",
    "get_args_parser",
    "get_overrides_dirname",
    "raise_errors_silently",
    "run_job",
    "value_or_error",
]

# The ``_target_`` of hydra.sweeper for Hydra's own sweeper.
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def raise_errors_silently() -> None:
    """Make JobReturn.return_value raise a job's error without a line about it; grulab prints one of its own."""

    def value_or_raise(job: JobReturn) -> Any:
        if job.status == JobStatus.FAILED:
            raise value_or_error(job)
        return value_or_error(job)

    returned: Any = JobReturn
    returned.return_value = returned.return_value.getter(value_or_raise)


def run_job(task_function: TaskFunction, config: DictConfig, folder: Path, context: HydraContext) -> JobReturn:
    """Do what hydra.core.utils.run_job does, for a configuration that nothing else refers to.

    Hydra makes four deep copies of the configuration, which take longer than all else that it does; this makes one of
    each part.

    Args:
        task_function: called with the job's part of the configuration.
        config: the whole configuration.
        folder: the job's folder, which exists.
        context: with the callbacks.
    """
    known, job = HydraConfig.instance(), JobReturn()
    before = known.cfg, Path.cwd()
    # The working directory may change below.
    folder = folder.absolute()
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    try:
        known.set_config(config)
        # Its type says HydraConf, and it is a configuration with the key hydra.
        job.hydra_cfg = cast(DictConfig, known.cfg)
        job.cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        job.overrides = OmegaConf.to_container(config.hydra.overrides.task)  # type: ignore[assignment]
        if config.hydra.job.chdir:
            os.chdir(folder)
        job.working_dir = str(Path.cwd())
        configure_log(config.hydra.job_logging, config.hydra.verbose)
        if config.hydra.output_subdir is not None:
            place = folder / config.hydra.output_subdir
            _save_config(job.cfg, "config.yaml", place)
            _save_config(job.hydra_cfg, "hydra.yaml", place)
            _save_config(config.hydra.overrides.task, "overrides.yaml", place)
        with env_override(config.hydra.job.env_set):
            context.callbacks.on_job_start(config=config, task_function=task_function)
            try:
                job.return_value = task_function(job.cfg)
                job.status = JobStatus.COMPLETED
            except Exception as error:
                job.return_value = error
                job.status = JobStatus.FAILED
        job.task_name = config.hydra.job.name
        _flush_loggers()
        context.callbacks.on_job_end(config=config, job_return=job)
        return job
    finally:
        known.cfg = before[0]
        os.chdir(before[1])


def value_or_error(job: JobReturn) -> Any:
    """Return the value or the exception of a job; the public property of JobReturn would print and raise it."""
    return job._return_value
