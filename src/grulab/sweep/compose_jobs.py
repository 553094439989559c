"""Compose and check all jobs of a sweep before the first one starts, without importing torch."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

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
from grulab.config.overrides import (
    is_about_hydra,
    key_of,
    parse_overrides,
    sets_value,
    structure_of,
)
from grulab.config.same_run import differ_in_how_only, run_hash
from grulab.config.schema import Config
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.config_error import ConfigError
from grulab.internals.hydra import BASIC_SWEEPER
from grulab.sweep import launcher_settings, manifest, ray_settings, slurm_settings, sweeper_settings
from grulab.sweep.design import (
    outlook,
    outlook_of_search,
    refuse_another_search,
    refuse_odd_design,
    refuse_other_end,
    refuse_other_folders,
)
from grulab.sweep.expand import expand, values_of_keys
from grulab.sweep.growth import known_jobs, siblings
from grulab.sweep.job import Job
from grulab.sweep.job_folders import is_inside, job_folder
from grulab.sweep.launcher_settings import SliceSettings
from grulab.sweep.manifest import GRID as GRID_DESIGN
from grulab.sweep.manifest import Design, Manifest
from grulab.sweep.race import with_seeds
from grulab.sweep.rungs import at_first_rung, at_rung_of
from grulab.sweep.search_space import parse_space
from grulab.sweep.status import result_of
from grulab.system.printable import printable

# Hydra's setting for the keys that a job's folder name leaves out.
EXCLUDE = "hydra.job.config.override_dirname.exclude_keys"
_LAUNCHERS: dict[str, Callable[[Mapping[str, Any]], SliceSettings]] = {
    launcher_settings.TARGET: launcher_settings.parse_settings,
    slurm_settings.TARGET: slurm_settings.parse_settings,
    ray_settings.TARGET: ray_settings.parse_settings,
}
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
        settings: the settings of one of grulab's launchers; None for another launcher.
        before: what the folder of a sweep that goes on has in sweep.json; None for a new sweep.
        design: how the jobs are chosen and compared.
        outlook: what follows from the results of the jobs, in words; empty if nothing does.
    """

    folder: Path
    jobs: list[Job]
    base: Config
    constant: list[str]
    settings: SliceSettings | None
    before: Manifest | None
    design: Design
    outlook: str = ""

    @property
    def configs(self) -> list[Config]:
        """The configuration of each job, or ``base`` alone if ``jobs`` is empty."""
        return [job.config for job in self.jobs] or [self.base]


def compose_sweep(overrides: Sequence[str], config_name: str = "config") -> Sweep:
    """Return every job of ``grulab train -m OVERRIDES``.

    The jobs are known beforehand only with GridSweeper and Hydra's basic sweeper. With another sweeper, the part that
    all jobs share is checked, and the result has no jobs.

    If the overrides name the folder of a sweep, its jobs keep their numbers and folders, and the others are added.

    Raises:
        ConfigError: as :func:`compose`, for all jobs at once; or if the folder holds another sweep.
    """
    asked = {key_of(line) for line in overrides}
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
        parse = _LAUNCHERS.get(hydra.launcher["_target_"])
        settings = parse(hydra.launcher) if parse else None
        before = manifest.read(folder) if "hydra.sweep.dir" in asked else None
        target = hydra.sweeper["_target_"]
        if target == sweeper_settings.SEARCH:
            search = sweeper_settings.parse_search_settings(hydra.sweeper)
            base, constant, searched = _check_search(search, overrides, config_name)
            kept = before.jobs if before else []
            refuse_another_search(before, base, search, searched)
            return Sweep(
                folder, kept, base, constant, settings, before, _design_of_search(search), outlook_of_search(search)
            )
        if target not in (BASIC_SWEEPER, sweeper_settings.GRID, sweeper_settings.RACE):
            other: Design = {**GRID_DESIGN, "kind": "other"}
            return Sweep(folder, [], checked(plain_values(values)), [], settings, before, other)
        grid = sweeper_settings.parse_settings(hydra.sweeper)
        for line in [*grid.swept, *(str(override.input_line) for override in parsed if override.is_sweep_override())]:
            if is_about_hydra(line):
                raise ConfigError(f"{line}: the jobs of a sweep share Hydra's keys; give it one value")
        refuse_size_and_budget(OmegaConf.select(values, "model.parameter_budget"), [*grid.swept, *overrides])
        # Overrides of Hydra's own keys apply to every job; Hydra's sweeper gets the other overrides only.
        about_hydra = [line for line in fixed if is_about_hydra(line)]
        arguments = [*grid.swept, *(line for line in overrides if not is_about_hydra(line))]
        if target == sweeper_settings.RACE:
            arguments = with_seeds(arguments)
        points = expand(arguments, grid.zip, grid.max_jobs)
        if not points:
            raise ConfigError(f"{' '.join(arguments)}: has no values, so the sweep has no jobs")
        configs = [at_first_rung(config, grid.rungs) for config in _compose_jobs(points, about_hydra, config_name)]
        constant = _constant(points)
        if not any(EXCLUDE in line for line in about_hydra):
            about_hydra.append(f"{EXCLUDE}=[{','.join(constant)}]")
        _refuse_same_runs(configs, points)

        def name_of(number: int, point: list[str]) -> str:
            if hydra.subdir.startswith("${grulab_job_folder:"):
                return job_folder(number, point, constant)
            return _subdir(number, point, about_hydra, config_name)

        jobs = [Job(number, "", *parts) for number, parts in enumerate(zip(points, configs, strict=True))]
        kind: Literal["grid", "race"] = "race" if target == sweeper_settings.RACE else "grid"
        indifference = grid.indifference if isinstance(grid, sweeper_settings.RaceSettings) else None
        design: Design = {
            "kind": kind, "tune": grid.tune, "rungs": grid.rungs, "indifference": indifference, "seeds": None,
        }  # fmt: skip
        refuse_odd_design(grid, jobs, overrides)
        jobs = _numbered(folder, before, jobs, asked, design, name_of)
        if settings is None:
            refuse_other_folders(jobs, name_of)
        if target == BASIC_SWEEPER and [job.overrides for job in jobs] != points:
            raise ConfigError("hydra/sweeper=basic: a sweep that grows needs hydra/sweeper=grid")
        names = [job.folder for job in jobs]
        _refuse_folders_elsewhere(names, hydra.subdir)
        _refuse_shared_folders(names, hydra.subdir)
        return Sweep(folder, jobs, configs[0], constant, settings, before, design, outlook(grid))


def _design_of_search(search: sweeper_settings.SearchSettings) -> Design:
    return {"kind": "search", "tune": [], "rungs": search.rungs, "indifference": None, "seeds": search.seeds}


def _check_search(
    search: sweeper_settings.SearchSettings, overrides: Sequence[str], config_name: str
) -> tuple[Config, list[str], set[str]]:
    """Check what a search may try by the ends of each axis.

    Returns:
        One configuration; the keys that are fixed, and those that are searched.

    Raises:
        ConfigError: if Optuna is missing, nothing is searched, or the end of an axis is not valid.
    """
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna: needs Optuna: pip install 'grulab[search]'")
    about_hydra = [line for line in overrides if is_about_hydra(line)]
    arguments = [*search.swept, *(line for line in overrides if not is_about_hydra(line))]
    if seed := next((line for line in arguments if key_of(line) == "seed"), None):
        raise ConfigError(f"{seed}: the seeds of a search are hydra.sweeper.seeds; leave it out")
    axes = parse_space(arguments)
    if not axes:
        raise ConfigError("hydra/sweeper=optuna: nothing is searched; write optimizer.lr=interval(0.001,0.1)")
    searched = {axis.key for axis in axes}
    fixed = [line for line in arguments if key_of(line) not in searched]
    first = {axis.key: axis.written(axis.ends[0]) for axis in axes}
    points = [
        [*fixed, *(first | {axis.key: axis.written(end)}).values(), f"seed={search.seeds[0]}"]
        for axis in axes
        for end in axis.ends
    ]
    refuse_size_and_budget(None, arguments)
    refuse_other_end(search.rungs, overrides)
    configs = _compose_jobs(points, about_hydra, config_name)
    return at_first_rung(configs[0], search.rungs), [key_of(line) for line in fixed], searched


def _numbered(
    folder: Path,
    before: Manifest | None,
    jobs: list[Job],
    asked: set[str],
    design: Design,
    name_of: Callable[[int, list[str]], str],
) -> list[Job]:
    """Return all jobs of a sweep in the order of their numbers: those of its folder, and those that are added."""
    if before is None or not before.jobs:
        return [replace(job, folder=name_of(job.number, job.overrides)) for job in jobs]
    if design["rungs"]:
        asked = asked | {"trainer.max_epochs"}
    known = known_jobs(folder, before.jobs, jobs, asked, adds_seeds=design["kind"] == "race")
    sibling_of = siblings([job.config for job in jobs])
    numbered = {}
    for job in before.jobs:
        # A race has added seeds; what the command changes is changed for them too.
        sibling = sibling_of(job.config)
        config = job.config if sibling is None else replace(sibling, seed=job.config.seed)
        numbered[job.number] = replace(job, config=at_rung_of(job.config, config, design["rungs"]))
    following = max(numbered) + 1
    # Further seeds of a configuration that has gone on train to its rung.
    known_sibling_of = siblings([job.config for job in before.jobs])
    for place, job in enumerate(jobs):
        if old := known.get(place):
            config = at_rung_of(old.config, job.config, design["rungs"])
            numbered[old.number] = replace(job, number=old.number, folder=old.folder, config=config)
        else:
            config = job.config
            if sibling := known_sibling_of(config):
                config = at_rung_of(sibling, config, design["rungs"])
            name = name_of(following, job.overrides)
            numbered[following] = replace(job, number=following, folder=name, config=config)
            following += 1
    for job in before.jobs:
        if _is_done_otherwise(folder / job.folder, job.config, numbered[job.number].config):
            # The folder would claim that it was computed in a way in which it was not.
            numbered[job.number] = job
    return [numbered[number] for number in sorted(numbered)]


def _is_done_otherwise(folder: Path, before: Config, after: Config) -> bool:
    return differ_in_how_only(before, after) and result_of(folder, after) is not None


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
    values = _copied(bases[structure])
    for override in parse_overrides(job):
        if sets_value(override):
            _set_value(values, override, job)
    return checked(values)


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else copy.copy(value) for key, value in values.items()}


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
    return [key for key, different in values_of_keys(jobs).items() if len(different) == 1]


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
