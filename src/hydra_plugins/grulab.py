"""The Hydra plugins of grulab, in the package where Hydra looks for plugins; grulab.sweep implements them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from grulab.sweep.hydra_jobs import HydraParts
    from grulab.sweep.job import Job
    from grulab.sweep.ray_settings import RaySettings
    from grulab.sweep.slurm_settings import SlurmSettings


class _OfJobs:
    """What the launchers share."""

    settings: dict[str, Any]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments of Hydra that a job needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def _jobs(self, overrides: Sequence[Sequence[str]], first_number: int) -> "tuple[HydraParts, list[Job]]":
        """Return the arguments, and the jobs of a launch as sweep.json has them."""
        from grulab.sweep.hydra_jobs import HydraParts, launched_jobs

        parts = HydraParts(self.hydra_context, self.task_function, self.config)
        return parts, launched_jobs(parts, [list(job) for job in overrides], first_number)

    def _plain(self) -> dict[str, Any]:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(self.settings)))


class GridSweeper(Sweeper):
    """Runs the jobs of sweep.json, which the command line has composed, and those that follow from their results.

    A failed job does not stop the other jobs of a launch.

    Args:
        settings: as in conf/hydra/sweeper/grid.yaml.
    """

    target = "hydra_plugins.grulab.GridSweeper"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher."""
        self.config = config
        self.hydra_context, self.task_function = hydra_context, task_function
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs; with ``on_failure: stop`` in the launcher, start no further jobs after a failure.

        Args:
            arguments: the sweep's overrides; its jobs are in sweep.json.

        Raises:
            SweepFailedError: after the last launch, if a job failed.
        """
        from grulab.sweep.hydra_jobs import refuse_failed

        assert self.config is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        returned = self._run(sweep_dir, arguments)
        refuse_failed(returned, sweep_dir)
        return [returned]

    def _run(self, sweep_dir: Path, arguments: list[str]) -> list[JobReturn]:
        from grulab.sweep.rounds import run_rounds
        from grulab.sweep.sweeper_settings import parse_settings

        assert self.launcher is not None
        return run_rounds(self.launcher, self._parts(), sweep_dir, parse_settings(self._plain()))

    def _plain(self) -> dict[str, Any]:
        plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(self.settings)))
        return plain | {"_target_": self.target}

    def _parts(self) -> "HydraParts":
        from grulab.sweep.hydra_jobs import HydraParts

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        return HydraParts(self.hydra_context, self.task_function, self.config)


class RaceSweeper(GridSweeper):
    """Adds seeds in rounds, and drops configurations that are worse; see conf/hydra/sweeper/race.yaml."""

    target = "hydra_plugins.grulab.RaceSweeper"


class OptunaSweeper(GridSweeper):
    """Searches for the best values with Optuna; see conf/hydra/sweeper/optuna.yaml."""

    target = "hydra_plugins.grulab.OptunaSweeper"

    def _run(self, sweep_dir: Path, arguments: list[str]) -> list[JobReturn]:
        from grulab.sweep.rounds import run_search
        from grulab.sweep.sweeper_settings import parse_search_settings

        assert self.launcher is not None
        return run_search(self.launcher, self._parts(), sweep_dir, parse_search_settings(self._plain()), arguments)


class SliceSweeper(GridSweeper):
    """Runs a slice of a sweep on this machine, without Hydra's launcher; ``grulab work`` puts it in place."""

    target = "hydra_plugins.grulab.SliceSweeper"

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments of Hydra that a job needs; the launcher of the sweep has done its part."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs of the slice that are not done.

        Raises:
            SweepFailedError: if a job failed.
        """
        from grulab.sweep.work import run_slice

        settings = self.settings
        return [run_slice(self._parts(), str(settings["slice"]), settings["slots"], list(settings["skip"]))]


class LocalLauncher(_OfJobs, Launcher):
    """Runs the jobs in parallel on this machine, each in a fresh process; see conf/hydra/launcher/local.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.more: Callable[[], Sequence[Any]] = list
        self.given_up: set[int] = set()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and those that the sweeper adds through ``more``; return the result of each job."""
        from grulab.sweep.launcher import launch
        from grulab.sweep.launcher_settings import parse_settings

        parts, jobs = self._jobs(job_overrides, initial_job_idx)
        return launch(parts, parse_settings(self.settings), jobs, self.more, self.given_up)


class SlurmLauncher(_OfJobs, Launcher):
    """Runs the jobs as an array of SLURM; see conf/hydra/launcher/slurm.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.given_up: set[int] = set()
        self._arrays_over: set[str] = set()

    def jobs_at_once(self, threads: int) -> int:
        """Return the number of jobs that run at the same time if all tasks do, of so many threads."""
        return self._settings().jobs_at_once(threads)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs that are not done, and follow them; return the result of each job."""
        from grulab.cluster.slurm import launch

        _, jobs = self._jobs(job_overrides, initial_job_idx)
        sweep_dir = Path(self.config.hydra.sweep.dir)
        return launch(sweep_dir, self._settings(), jobs, self.given_up, self._arrays_over)

    def _settings(self) -> "SlurmSettings":
        from grulab.sweep.slurm_settings import parse_settings

        return parse_settings(self._plain())


class RayLauncher(_OfJobs, Launcher):
    """Runs the jobs as tasks of Ray; see conf/hydra/launcher/ray.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.given_up: set[int] = set()

    def jobs_at_once(self, threads: int) -> int:
        """Return the number of jobs that run at the same time if all tasks do, of so many threads."""
        from grulab.cluster.ray_launcher import tasks_at_once

        settings = self._settings()
        return tasks_at_once(settings) * max(1, settings.num_cpus // threads)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start tasks for the jobs that are not done, and follow them; return the result of each job."""
        from grulab.cluster.ray_launcher import launch

        _, jobs = self._jobs(job_overrides, initial_job_idx)
        return launch(Path(self.config.hydra.sweep.dir), self._settings(), jobs, self.given_up)

    def _settings(self) -> "RaySettings":
        from grulab.sweep.ray_settings import parse_settings

        return parse_settings(self._plain())
