"""What Hydra finds: plugins have to live in this package. The work is done in grulab.sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, with keys that can go side by side, and with failures that stop no batch.

    Args:
        max_batch_size: jobs launched together; None launches all.
        params: what is swept, ``key: values``.
        zip: keys whose values go side by side instead of each with each; a list of such lists.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        zip: Any = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.zip = zip

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the jobs, up to the end or to the first failure, as the launcher's ``on_failure`` says.

        Raises:
            SweepFailedError: when all are done and some failed.
        """
        from grulab.sweep.expand import SweepFailedError, expand
        from grulab.sweep.launcher import JobNotRunError

        assert self.config is not None
        assert self.launcher is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        # No check here that the jobs compose, which takes Hydra 60 ms a job: the command line has made it.
        jobs = expand([*self._parse_config(), *arguments], self.zip)
        returned: list[JobReturn] = []
        for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
            returned += self.launcher.launch(batch, initial_job_idx=len(returned))
            failed = [job for job in returned if job.status == JobStatus.FAILED]
            if failed and self.config.hydra.launcher.get("on_failure") == "stop":
                break
        # Hydra's own field: to ask for the value would print and raise what a job has failed with.
        skipped = sum(isinstance(job._return_value, JobNotRunError) for job in failed)
        if failed:
            not_run = skipped + len(jobs) - len(returned)
            raise SweepFailedError(len(failed) - skipped, not_run, len(jobs), sweep_dir)
        return [returned]


class LocalLauncher(Launcher):
    """Runs the jobs in parallel on this machine, each in a fresh process; see conf/hydra/launcher/local.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a job needs from Hydra."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return how each ended."""
        from grulab.sweep.hydra_jobs import HydraParts
        from grulab.sweep.launcher import launch
        from grulab.sweep.launcher_settings import parse_settings

        parts = HydraParts(self.hydra_context, self.task_function, self.config)
        return launch(parts, parse_settings(self.settings), [list(job) for job in job_overrides], initial_job_idx)
