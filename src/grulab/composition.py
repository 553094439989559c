"""From overrides to checked configurations, with every mistake found before anything is started. No torch."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grulab.config import Config, ConfigError, parse, unknown_key, valid_keys
from grulab.folders import job_folder
from grulab.mistakes import config_dir, explain, known_keys


def _job_folder(number: Any, overrides: Any, exclude: Any) -> str:
    # A job's number is not known before it is launched.
    return job_folder(number, overrides, exclude) if isinstance(number, int) else "job"


OmegaConf.register_new_resolver("grulab_job_folder", _job_folder, replace=True)


@dataclass(frozen=True)
class Sweep:
    """The jobs of a multirun.

    Attributes:
        folder: hydra.sweep.dir.
        overrides: each job's, as ``key=value``.
        configs: each job's.
        constant: keys that have the same value in every job.
    """

    folder: Path
    overrides: list[list[str]]
    configs: list[Config]
    constant: list[str]


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


def compose_run(overrides: Sequence[str], config_name: str = "config") -> tuple[Config, DictConfig]:
    """Return a single run's configuration, and Hydra's own (``run.dir`` and all that).

    Raises:
        ConfigError: as :func:`compose`.
    """
    with _hydra(overrides):
        for override in _parsed(overrides):
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values make a sweep: grulab train -m ...")
        return _compose(overrides, config_name)


def compose_sweep(overrides: Sequence[str], config_name: str = "config") -> Sweep:
    """Return every job of ``grulab train -m OVERRIDES``.

    Only Hydra's own sweeper says beforehand what its jobs are; with another, just the part that all jobs share is
    checked and the lists of the result are empty.

    Raises:
        ConfigError: as :func:`compose`, for all jobs at once.
    """
    with _hydra(overrides):
        parsed = _parsed(overrides)
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        base, hydra = _compose(fixed, config_name)
        folder = Path(hydra.sweep.dir)
        for override in parsed:
            if _sets_value(override) and override.key_or_group not in valid_keys(base.to_dict()):
                raise ConfigError(unknown_key(str(override.input_line), known_keys(overrides)))
        if not hydra.sweeper._target_.endswith(BasicSweeper.__name__):
            return Sweep(folder, [], [base], [])
        swept = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
        # Hydra's sweeper sees the job's overrides alone; what is about Hydra holds for every job.
        settings = [line for line in fixed if _is_about_hydra(line)]
        arguments = [line for line in overrides if not _is_about_hydra(line)]
        jobs = BasicSweeper.split_arguments(_parsed([*swept, *arguments]), None)[0]
        if not jobs:
            raise ConfigError(f"{' '.join([*swept, *arguments])}: has no values, so the sweep has no jobs")
        configs = []
        mistakes: dict[str, int] = {}
        bases: dict[tuple[str, ...], DictConfig] = {}
        for number, job in enumerate(jobs):
            try:
                configs.append(_compose_job(job, settings, config_name, bases))
            except ConfigError as error:
                for line in str(error).splitlines():
                    mistakes.setdefault(line, number)
        if mistakes:
            raise ConfigError("\n".join(f"{line} (first in job {number})" for line, number in mistakes.items()))
        return Sweep(folder, jobs, configs, _constant(jobs))


def override_values(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested values with overrides of keys that are there; unlike :func:`compose`, without conf/.

    Raises:
        ConfigError: if an override cannot be read, or its key is not there.
    """
    changed = OmegaConf.create(dict(values))
    try:
        for override in _parsed(overrides):
            line = str(override.input_line)
            if not _sets_value(override) or override.is_sweep_override():
                raise ConfigError(f"{line}: cannot change here; only single values can, as key=value")
            if OmegaConf.select(changed, override.key_or_group, default=changed) is changed:
                raise ConfigError(unknown_key(line, valid_keys(values)))
            OmegaConf.update(changed, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from None
    return OmegaConf.to_container(changed, resolve=True)  # type: ignore[return-value]


def _constant(jobs: list[list[str]]) -> list[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job:
            key, _, value = override.lstrip("+~").partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) == 1]


def _compose(overrides: Sequence[str], config_name: str) -> tuple[Config, DictConfig]:
    values = hydra_compose(config_name, list(overrides), return_hydra_config=True)
    hydra = OmegaConf.create(
        {
            # The folders refer to the name.
            "run": {"dir": values.hydra.run.dir},
            "sweep": {"dir": values.hydra.sweep.dir},
            "sweeper": {
                "_target_": values.hydra.sweeper._target_,
                "params": values.hydra.sweeper.get("params"),
            },
        }
    )
    return checked(values), hydra


def _compose_job(
    job: list[str], settings: list[str], config_name: str, bases: dict[tuple[str, ...], DictConfig]
) -> Config:
    """Return one job's configuration.

    Composing takes Hydra 60 ms. Jobs mostly differ in values alone, so what they have in common is composed once and
    kept in ``bases``.
    """
    parsed = _parsed(job)
    structure = tuple(str(override.input_line) for override in parsed if not _sets_value(override))
    if structure not in bases:
        bases[structure] = hydra_compose(config_name, [*settings, *structure])
    values = copy.deepcopy(bases[structure])
    for override in parsed:
        if _sets_value(override):
            if OmegaConf.select(values, override.key_or_group, default=values) is values:
                raise ConfigError(unknown_key(str(override.input_line), known_keys(job)))
            OmegaConf.update(values, override.key_or_group, override.value())
    return checked(values)


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
        ConfigError: as :func:`grulab.config.parse`.
    """
    OmegaConf.set_struct(values, False)
    values.pop("hydra", None)
    plain = OmegaConf.to_container(values, resolve=True)
    assert isinstance(plain, dict)
    return parse(plain)  # type: ignore[arg-type]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"{override.input_line}: has no key; write key=value")
    return parsed


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
