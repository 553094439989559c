"""Compose and check all jobs of a sweep before the first one starts, without importing torch."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf, open_dict

from grulab.config.compose import (
    checked,
    compose_values,
    compose_with_hydra,
    hydra_ready,
    plain_values,
    refuse_size_and_budget,
)
from grulab.config.hydra_errors import known_keys
from grulab.config.overrides import is_about_hydra, parse_overrides, sets_value, split_override, structure_of
from grulab.config.same_run import run_hash
from grulab.config.schema import Config
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.config_error import ConfigError
from grulab.internals.hydra import BASIC_SWEEPER
from grulab.sweep import sweeper_settings
from grulab.sweep.expand import expand
from grulab.sweep.job import Job
from grulab.sweep.job_folders import is_inside, job_folder
from grulab.sweep.launcher_settings import TARGET, LocalSettings
from grulab.sweep.launcher_settings import parse_settings as parse_launcher_settings
from grulab.system.printable import printable

# Hydra's setting for the keys that a job's folder name leaves out.
EXCLUDE = "hydra.job.config.override_dirname.exclude_keys"
# An error message lists at most this many jobs with the same mistake.
_JOBS_LISTED = 40


@dataclass(frozen=True)
class Sweep:
    """A composed multirun.

    Attributes:
        folder: the sweep's folder, ``hydra.sweep.dir``.
        jobs: all jobs; empty if the sweeper chooses them while it runs.
        base: the configuration of the first job, or the part that all jobs share if ``jobs`` is empty.
        constant: keys that have the same value in every job.
        settings: the settings of grulab's launcher; None for another launcher.
    """

    folder: Path
    jobs: list[Job]
    base: Config
    constant: list[str]
    settings: LocalSettings | None

    @property
    def configs(self) -> list[Config]:
        """The configuration of each job, or ``base`` alone if ``jobs`` is empty."""
        return [job.config for job in self.jobs] or [self.base]


def compose_sweep(overrides: Sequence[str], config_name: str = "config") -> Sweep:
    """Return every job of ``grulab train -m OVERRIDES``.

    The jobs are known beforehand only with GridSweeper and Hydra's basic sweeper. With another sweeper, the part that
    all jobs share is checked, and the result has no jobs.

    Raises:
        ConfigError: as :func:`compose`, for all jobs at once.
    """
    with hydra_ready(overrides):
        parsed = parse_overrides(overrides)
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        values, hydra = compose_values(fixed, config_name)
        keys = valid_keys(values.data.get("task"))
        for override in parsed:
            if sets_value(override) and override.key_or_group not in keys:
                raise ConfigError(unknown_key(str(override.input_line), known_keys(overrides)))
        folder = Path(hydra.sweep_dir)
        _refuse_unknown_plugin("hydra.launcher", hydra.launcher, Launcher)
        _refuse_unknown_plugin("hydra.sweeper", hydra.sweeper, Sweeper)
        settings = parse_launcher_settings(hydra.launcher) if hydra.launcher["_target_"] == TARGET else None
        if hydra.sweeper["_target_"] not in (BASIC_SWEEPER, sweeper_settings.TARGET):
            return Sweep(folder, [], checked(plain_values(values)), [], settings)
        grid = sweeper_settings.parse_settings(hydra.sweeper)
        for line in [*grid.swept, *(str(override.input_line) for override in parsed if override.is_sweep_override())]:
            if is_about_hydra(line):
                raise ConfigError(f"{line}: the jobs of a sweep share Hydra's keys; give it one value")
        refuse_size_and_budget(OmegaConf.select(values, "model.parameter_budget"), [*grid.swept, *overrides])
        # Overrides of Hydra's own keys apply to every job; Hydra's sweeper gets the other overrides only.
        about_hydra = [line for line in fixed if is_about_hydra(line)]
        arguments = [*grid.swept, *(line for line in overrides if not is_about_hydra(line))]
        points = expand(arguments, grid.zip, grid.max_jobs)
        if not points:
            raise ConfigError(f"{' '.join(arguments)}: has no values, so the sweep has no jobs")
        configs = _compose_jobs(points, about_hydra, config_name)
        constant = _constant(points)
        if not any(EXCLUDE in line for line in about_hydra):
            about_hydra.append(f"{EXCLUDE}=[{','.join(constant)}]")
        if hydra.subdir.startswith("${grulab_job_folder:"):
            names = [job_folder(number, point, constant) for number, point in enumerate(points)]
        else:
            names = [_subdir(number, point, about_hydra, config_name) for number, point in enumerate(points)]
        _refuse_folders_elsewhere(names, hydra.subdir)
        _refuse_shared_folders(names, hydra.subdir)
        _refuse_same_runs(configs, points)
        jobs = [Job(*parts) for parts in zip(range(len(points)), names, points, configs, strict=True)]
        return Sweep(folder, jobs, configs[0], constant, settings)


def _refuse_unknown_plugin(section: str, values: Mapping[str, Any], kind: type[Plugin]) -> None:
    """Check that a section of Hydra's configuration names an installed plug-in.

    Raises:
        ConfigError: if it does not.
    """
    names = [f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(kind)]
    if values["_target_"] not in names:
        target = printable(str(values["_target_"]))
        raise ConfigError(f"{section}._target_={target}: is not installed; choose from {', '.join(sorted(names))}")


def _compose_jobs(points: list[list[str]], settings: list[str], config_name: str) -> list[Config]:
    """Return the configuration of each job.

    Raises:
        ConfigError: with the mistakes of all jobs.
    """
    configs = []
    mistakes: dict[str, list[int]] = {}
    bases: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, point in enumerate(points):
        try:
            configs.append(_compose_job(point, settings, config_name, bases))
        except ConfigError as error:
            for line in str(error).splitlines():
                mistakes.setdefault(line, []).append(number)
    if mistakes:
        raise ConfigError("\n".join(_in_jobs(line, numbers, points) for line, numbers in mistakes.items()))
    return configs


def _in_jobs(mistake: str, numbers: list[int], points: list[list[str]]) -> str:
    """Return a mistake, followed by one line for each job that has it unless all jobs have it."""
    if len(numbers) == len(points):
        return mistake
    lines = [f"{mistake}, in {len(numbers)} of {len(points)} jobs:"]
    lines += [f"  job {number}: {' '.join(points[number])}" for number in numbers[:_JOBS_LISTED]]
    if len(numbers) > _JOBS_LISTED:
        lines.append(f"  and {len(numbers) - _JOBS_LISTED} more")
    return "\n".join(lines)


def _compose_job(
    job: list[str], settings: list[str], config_name: str, bases: dict[tuple[str, ...], dict[str, Any]]
) -> Config:
    """Return one job's configuration.

    Hydra takes 60 ms to compose a configuration. Most jobs differ in values only, so their common part is composed
    once and kept in ``bases``.
    """
    structure = structure_of(job)
    if structure not in bases:
        bases[structure] = plain_values(compose_with_hydra(config_name, [*settings, *structure]))
    values = copy.deepcopy(bases[structure])
    for override in parse_overrides(job):
        if sets_value(override):
            _set_value(values, override, job)
    return checked(values)


def _set_value(values: dict[str, Any], override: Override, job: list[str]) -> None:
    """Set the value of an existing key in nested values.

    Raises:
        ConfigError: if there is no such key.
    """
    *sections, name = override.key_or_group.split(".")
    place: Any = values
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    if not isinstance(place, dict) or name not in place:
        raise ConfigError(unknown_key(str(override.input_line), known_keys(job)))
    place[name] = override.value()


def _subdir(number: int, point: list[str], settings: list[str], config_name: str) -> str:
    """Return the folder of a job for a user-defined ``hydra.sweep.subdir``."""
    values = compose_with_hydra(config_name, [*settings, *point])
    OmegaConf.set_readonly(values.hydra, False)
    with open_dict(values.hydra):
        values.hydra.job.num = values.hydra.job.id = number
        values.hydra.overrides.task = point
    return str(values.hydra.sweep.subdir)


def _constant(jobs: list[list[str]]) -> list[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job:
            key, value = split_override(override)
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) == 1]


def _refuse_folders_elsewhere(names: list[str], subdir: str) -> None:
    for name in names:
        if not is_inside(name):
            raise ConfigError(f"hydra.sweep.subdir={subdir}: the folder {name} is outside the sweep's; name another")


def _refuse_shared_folders(names: list[str], subdir: str) -> None:
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if number != numbers.setdefault(name, number):
            raise ConfigError(
                f"hydra.sweep.subdir={subdir}: jobs {numbers[name]} and {number} would share the folder {name}; "
                "name what differs, or ${hydra.job.num}"
            )


def _refuse_same_runs(configs: list[Config], points: list[list[str]]) -> None:
    """Refuse a sweep with the same run twice: a seed that counts twice would make every interval too narrow."""
    numbers: dict[str, int] = {}
    for number, config in enumerate(configs):
        first = numbers.setdefault(run_hash(config), number)
        if first != number:
            raise ConfigError(f"{' '.join(points[number])}: jobs {first} and {number} are the same run; name it once")
