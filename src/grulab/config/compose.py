"""From overrides to checked configurations, with every mistake found before anything is started. No torch."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grulab.config.hydra_errors import config_dir, explain, known_keys
from grulab.config.schema import Config, ConfigError, parse, unknown_key, valid_keys
from grulab.kernels.backend import refuse_missing
from grulab.run_folder.paths import job_folder
from grulab.sweep.expand import expand
from grulab.sweep.launcher_settings import TARGET, LocalSettings, parse_settings


def _job_folder(number: Any, overrides: Any, exclude: Any) -> str:
    # A job's number is not known before it is launched.
    return job_folder(number, overrides, exclude) if isinstance(number, int) else "job"


# Keys that a folder's name leaves out.
EXCLUDE = "hydra.job.config.override_dirname.exclude_keys"
# Of those that make the same mistake.
_JOBS_LISTED = 40

OmegaConf.register_new_resolver("grulab_job_folder", _job_folder, replace=True)


@dataclass(frozen=True)
class HydraSettings:
    """What matters here of Hydra's own configuration; ``subdir`` as it is written, for it is another in each job."""

    run_dir: str
    sweep_dir: str
    subdir: str
    sweeper: dict[str, Any]
    launcher: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One of a sweep's runs.

    Attributes:
        number: from 0, in the sweep's order.
        folder: its name in the sweep's folder.
        overrides: as ``key=value``.
        config: what it runs.
    """

    number: int
    folder: str
    overrides: list[str]
    config: Config


@dataclass(frozen=True)
class Sweep:
    """A multirun.

    Attributes:
        folder: hydra.sweep.dir.
        jobs: all of them; empty if only the sweeper knows, as it goes on.
        base: the first job's configuration; of a sweep whose jobs are not known, what they have in common.
        constant: keys that have the same value in every job.
        settings: the launcher's, if it is ours.
    """

    folder: Path
    jobs: list[Job]
    base: Config
    constant: list[str]
    settings: LocalSettings | None

    @property
    def configs(self) -> list[Config]:
        """Each job's configuration, or what is known of it."""
        return [job.config for job in self.jobs] or [self.base]


def compose(overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that ``grulab train OVERRIDES`` would run.

    Args:
        overrides: such as ``["model.hidden_size=16", "seed=1"]``.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"{overrides}: is text; compose() takes a list of overrides, [{overrides!r}]")
    return compose_run(overrides)[0]


def compose_run(overrides: Sequence[str], config_name: str = "config") -> tuple[Config, HydraSettings]:
    """Return a single run's configuration, and Hydra's own.

    Raises:
        ConfigError: as :func:`compose`.
    """
    with _hydra(overrides):
        for override in parse_overrides(overrides):
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values make a sweep: grulab train -m ...")
        values, hydra = _compose(overrides, config_name)
        _refuse_solved_size(OmegaConf.select(values, "model.parameter_budget"), overrides)
        return checked(values), hydra


def compose_sweep(overrides: Sequence[str], config_name: str = "config") -> Sweep:
    """Return every job of ``grulab train -m OVERRIDES``.

    Only our sweeper and Hydra's own say beforehand what their jobs are; with another, just the part that all jobs
    share is checked, and there are no jobs in the result.

    Raises:
        ConfigError: as :func:`compose`, for all jobs at once.
    """
    with _hydra(overrides):
        parsed = parse_overrides(overrides)
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        values, hydra = _compose(fixed, config_name)
        for override in parsed:
            if _sets_value(override) and override.key_or_group not in valid_keys({"data": dict(values.data)}):
                raise ConfigError(unknown_key(str(override.input_line), known_keys(overrides)))
        folder = Path(hydra.sweep_dir)
        settings = parse_settings(hydra.launcher) if hydra.launcher["_target_"] == TARGET else None
        if not hydra.sweeper["_target_"].endswith((BasicSweeper.__name__, "grulab.GridSweeper")):
            return Sweep(folder, [], checked(values), [], settings)
        batch_size = hydra.sweeper.get("max_batch_size")
        if batch_size is not None and not (type(batch_size) is int and batch_size >= 1):
            raise ConfigError(f"hydra.sweeper.max_batch_size={batch_size}: must be null or at least 1")
        swept = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
        _refuse_solved_size(OmegaConf.select(values, "model.parameter_budget"), [*swept, *overrides])
        # Hydra's sweeper sees the job's overrides alone; what is about Hydra holds for every job.
        about_hydra = [line for line in fixed if _is_about_hydra(line)]
        arguments = [*swept, *(line for line in overrides if not _is_about_hydra(line))]
        points = expand(arguments, hydra.sweeper.get("zip"))
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
        _refuse_shared_folders(names, hydra.subdir)
        _refuse_same_runs(configs, points)
        jobs = [Job(*parts) for parts in zip(range(len(points)), names, points, configs, strict=True)]
        return Sweep(folder, jobs, configs[0], constant, settings)


def override_values(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested values with overrides of keys that are there; unlike :func:`compose`, without conf/.

    Raises:
        ConfigError: if an override cannot be read, or its key is not there.
    """
    changed = OmegaConf.create(dict(values))
    try:
        for override in parse_overrides(overrides):
            line = str(override.input_line)
            if not _sets_value(override) or override.is_sweep_override():
                raise ConfigError(f"{line}: cannot change here; only single values can, as key=value")
            if OmegaConf.select(changed, override.key_or_group, default=changed) is changed:
                raise ConfigError(unknown_key(line, valid_keys(values)))
            OmegaConf.update(changed, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from None
    return cast(dict[str, Any], OmegaConf.to_container(changed, resolve=True))


def _constant(jobs: list[list[str]]) -> list[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job:
            key, _, value = override.lstrip("+~").partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) == 1]


def _compose(overrides: Sequence[str], config_name: str) -> tuple[DictConfig, HydraSettings]:
    values = hydra_compose(config_name, list(overrides), return_hydra_config=True)
    sweep: Any = OmegaConf.to_container(values.hydra.sweep, resolve=False)
    sweeper: Any = OmegaConf.to_container(values.hydra.sweeper, resolve=True)
    launcher: Any = OmegaConf.to_container(values.hydra.launcher, resolve=True)
    # The folders refer to the name.
    settings = HydraSettings(values.hydra.run.dir, values.hydra.sweep.dir, str(sweep["subdir"]), sweeper, launcher)
    return values, settings


def _compose_jobs(points: list[list[str]], settings: list[str], config_name: str) -> list[Config]:
    """Return each job's configuration.

    Raises:
        ConfigError: with the mistakes of all jobs.
    """
    configs = []
    mistakes: dict[str, list[int]] = {}
    bases: dict[tuple[str, ...], DictConfig] = {}
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
    """Return a mistake and the jobs that make it, a line each."""
    if len(numbers) == len(points):
        return mistake
    lines = [f"{mistake}, in {len(numbers)} of {len(points)} jobs:"]
    lines += [f"  job {number}: {' '.join(points[number])}" for number in numbers[:_JOBS_LISTED]]
    if len(numbers) > _JOBS_LISTED:
        lines.append(f"  and {len(numbers) - _JOBS_LISTED} more")
    return "\n".join(lines)


def _compose_job(
    job: list[str], settings: list[str], config_name: str, bases: dict[tuple[str, ...], DictConfig]
) -> Config:
    """Return one job's configuration.

    Composing takes Hydra 60 ms. Jobs mostly differ in values alone, so what they have in common is composed once and
    kept in ``bases``.
    """
    structure = structure_of(job)
    if structure not in bases:
        bases[structure] = hydra_compose(config_name, [*settings, *structure])
    values = copy.deepcopy(bases[structure])
    for override in parse_overrides(job):
        if _sets_value(override):
            if OmegaConf.select(values, override.key_or_group, default=values) is values:
                raise ConfigError(unknown_key(str(override.input_line), known_keys(job)))
            OmegaConf.update(values, override.key_or_group, override.value())
    return checked(values)


def _subdir(number: int, point: list[str], settings: list[str], config_name: str) -> str:
    """Return the folder of a job for a ``hydra.sweep.subdir`` of the user's own."""
    values = hydra_compose(config_name, [*settings, *point], return_hydra_config=True)
    OmegaConf.set_readonly(values.hydra, False)
    with open_dict(values.hydra):
        values.hydra.job.num = values.hydra.job.id = number
        values.hydra.overrides.task = point
    return str(values.hydra.sweep.subdir)


def _refuse_shared_folders(names: list[str], subdir: str) -> None:
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if number != numbers.setdefault(name, number):
            raise ConfigError(
                f"hydra.sweep.subdir={subdir}: jobs {numbers[name]} and {number} would share the folder {name}; "
                "name what differs, or ${hydra.job.num}"
            )


def _refuse_same_runs(configs: list[Config], points: list[list[str]]) -> None:
    """Refuse a run that is there twice: two seeds that are one would make every interval too narrow."""
    numbers: dict[str, int] = {}
    for number, config in enumerate(configs):
        first = numbers.setdefault(replace(config, name="same").hash(), number)
        if first != number:
            raise ConfigError(f"{' '.join(points[number])}: jobs {first} and {number} are the same run; name it once")


def _refuse_solved_size(budget_set: Any, overrides: Sequence[str]) -> None:
    """Refuse a hidden size beside a budget that determines it.

    Raises:
        ConfigError: if both are asked for.
    """
    keys = {line.lstrip("+").partition("=")[0]: line for line in overrides}
    size, budget = keys.get("model.hidden_size"), keys.get("model.parameter_budget")
    if budget is None and budget_set is not None:
        budget = f"model.parameter_budget={budget_set}"
    if size and budget and not budget.endswith("=null"):
        raise ConfigError(f"{size}: does not go with {budget}, which determines it; leave out one of them")


def structure_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that do more than to set a value: jobs that agree in them are composed alike."""
    return tuple(str(override.input_line) for override in parse_overrides(overrides) if not _sets_value(override))


def _is_about_hydra(line: str) -> bool:
    return line.lstrip("+~").startswith(("hydra.", "hydra/"))


def _sets_value(override: Override) -> bool:
    """Return whether the override changes a value that is there, and not what the configuration is made of."""
    is_value = "." in override.key_or_group or override.key_or_group in ("name", "seed")
    if _is_about_hydra(override.key_or_group):
        return False
    return override.type == OverrideType.CHANGE and override.package is None and is_value


def checked(values: DictConfig) -> Config:
    """Return the checked configuration of composed values, Hydra's own part left out.

    Raises:
        ConfigError: as :func:`grulab.config.schema.parse`.
    """
    OmegaConf.set_struct(values, False)
    values.pop("hydra", None)
    config = parse(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)))
    refuse_missing(config)
    return config


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them.

    Raises:
        ConfigError: if one has no key.
    """
    parsed = [_parse(line) for line in overrides]
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"{override.input_line}: has no key; write key=value")
    return parsed


@lru_cache(maxsize=10_000)
def _parse(line: str) -> Override:
    """Return an override; the jobs of a sweep are made of few different ones, and reading one takes a millisecond."""
    return OverridesParser.create().parse_overrides([line])[0]


@contextmanager
def _hydra(overrides: Sequence[str]) -> Iterator[None]:
    """Make Hydra ready to compose, and turn what it raises into a ConfigError."""
    with initialize_config_dir(str(config_dir()), job_name="grulab", version_base="1.3"):
        try:
            yield
        except ConfigError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
            raise ConfigError(explain(error, overrides)) from None
