"""The Hydra plugins of grulab, in the package where Hydra looks for plugins; grulab.sweep implements them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from grulab.internals.hydra import value_or_error


class GridSweeper(Sweeper):
    """Hydra's basic sweeper with zipped keys; a failed job does not stop the other jobs of a launch.

    Args:
        settings: as in conf/hydra/sweeper/grid.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs; with ``on_failure: stop`` in the launcher, start no further jobs after a failure.

        Raises:
            SweepFailedError: after the last launch, if a job failed.
        """
        from grulab.run_folder.full_disk import is_full_disk
        from grulab.sweep.expand import expand
        from grulab.sweep.failures import JobNotRunError, SweepFailedError
        from grulab.sweep.sweeper_settings import parse_settings

        assert self.config is not None
        assert self.launcher is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        settings = parse_settings(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(self.settings))))
        # The jobs are not composed here, which takes Hydra 60 ms per job: the command line has checked them.
        jobs = expand([*settings.swept, *arguments], settings.zip, settings.max_jobs)
        returned: list[JobReturn] = []
        size = settings.max_batch_size or len(jobs)
        for start in range(0, len(jobs), size):
            returned += self.launcher.launch(jobs[start : start + size], initial_job_idx=start)
            failed = [job for job in returned if job.status == JobStatus.FAILED]
            if failed and self.config.hydra.launcher.get("on_failure") == "stop":
                break
        skipped = sum(isinstance(value_or_error(job), JobNotRunError) for job in failed)
        if failed:
            not_run = skipped + len(jobs) - len(returned)
            is_disk_full = any(is_full_disk(value_or_error(job)) for job in failed)
            raise SweepFailedError(len(failed) - skipped, not_run, len(jobs), sweep_dir, is_disk_full)
        return [returned]


class LocalLauncher(Launcher):
    """Runs the jobs in parallel on this machine, each in a fresh process; see conf/hydra/launcher/local.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments of Hydra that a job needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return the result of each job."""
        from grulab.sweep.hydra_jobs import HydraParts
        from grulab.sweep.launcher import launch
        from grulab.sweep.launcher_settings import parse_settings

        parts = HydraParts(self.hydra_context, self.task_function, self.config)
        return launch(parts, parse_settings(self.settings), [list(job) for job in job_overrides], initial_job_idx)
