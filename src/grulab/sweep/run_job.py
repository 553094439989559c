"""The function that Hydra calls for a single run, and for each job of a sweep with any launcher."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from grulab.config.compose import checked, plain_values
from grulab.config.schema import Config
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import read_summary
from grulab.sweep import job_folders as job_folders
from grulab.sweep import manifest
from grulab.sweep.status import record_failure, result_of
from grulab.system.quick_import import quick_import

log = logging.getLogger(__name__)


def run_job(values: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it; return the monitored metric of its best epoch.

    A job of a sweep that is already done is not run again, and an unfinished job is resumed.

    Raises:
        Exception: the error that stopped the run.
    """
    settings = HydraConfig.get()
    run_dir = Path(settings.runtime.output_dir)
    if settings.mode != RunMode.MULTIRUN:
        config = checked(plain_values(values))
        # Torch is imported here, after every check of the configuration.
        with quick_import():
            from grulab.training.run import begin

        # The command line has locked the folder, before Hydra wrote to it.
        return _score(begin(config, run_dir))
    job = manifest.find(Path(settings.runtime.cwd, settings.sweep.dir), settings.job.num)
    return run_known(job.config if job else checked(plain_values(values)))


def run_known(config: Config) -> float:
    """Run, or go on with, a job of a sweep, in the folder that Hydra made for it; see :func:`run_job`."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    score = result_of(run_dir, config)
    if score is not None:
        log.info("done before")
        return score
    try:
        with quick_import():
            from grulab.training.resume import resume_run
            from grulab.training.run import train

        has_begun = read_summary(run_dir) is not None or (run_dir / paths.CHECKPOINTS).is_dir()
        return _score(resume_run(config, run_dir) if has_begun else train(config, run_dir))
    except Exception as error:
        # The run's summary already has most errors, but not an error that occurred before the run began.
        if ((read_summary(run_dir) or {}).get("error") or {}).get("message") != str(error):
            # A full disk is the error already.
            with suppress(OSError):
                record_failure(run_dir, config, type(error).__name__, str(error))
        # Hydra reports the first failure only, and only after all jobs have ended.
        log.error("failed  %s in %s: %s", type(error).__name__, display_path(run_dir), error)
        raise


def _score(summary: dict[str, Any]) -> float:
    return float(summary["metrics"][summary["monitor"]])
