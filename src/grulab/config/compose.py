"""Compose the checked configuration of a run from overrides, before anything starts. Does not import torch."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grulab.config.conf_dir import chosen_task, config_dir, groups
from grulab.config.hydra_errors import explain
from grulab.config.overrides import key_of, parse_overrides, sets_value, split_override
from grulab.config.parameter_budget import within_budget
from grulab.config.parse import located, parse
from grulab.config.same_run import flatten, unflatten
from grulab.config.schema import Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError


@dataclass(frozen=True)
class HydraSettings:
    """The part of Hydra's own configuration that grulab uses.

    Attributes:
        run_dir: hydra.run.dir.
        sweep_dir: hydra.sweep.dir.
        subdir: hydra.sweep.subdir, not resolved, because each job resolves it to a different folder.
        sweeper: hydra.sweeper.
        launcher: hydra.launcher.
    """

    run_dir: str
    sweep_dir: str
    subdir: str
    sweeper: dict[str, Any]
    launcher: dict[str, Any]


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
    """Return the configuration of a single run, and Hydra's settings.

    Raises:
        ConfigError: as :func:`compose`.
    """
    with hydra_ready(overrides):
        for override in parse_overrides(overrides):
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values make a sweep: grulab train -m ...")
        values, settings = compose_values(overrides, config_name)
        refuse_size_and_budget(OmegaConf.select(values, "model.parameter_budget"), overrides)
        return checked(plain_values(values)), settings


def compose_values(overrides: Sequence[str], config_name: str) -> tuple[DictConfig, HydraSettings]:
    """Return the unchecked values that Hydra composes, and Hydra's settings; call it within :func:`hydra_ready`."""
    for key, value in map(split_override, overrides):
        if key == "data.task" and value in groups()["data"] and value != chosen_task(overrides):
            raise ConfigError(f"{key}={value}: brings none of its other keys; write data={value}")
    values = compose_with_hydra(config_name, overrides)
    data = values.get("data")
    if isinstance(data, DictConfig) and ("task" not in data or OmegaConf.is_missing(data, "task")):
        # The name, and with it the folders, refer to it.
        raise ConfigError("data.task: has no value; give it the name of a task")
    sweep: Any = OmegaConf.to_container(values.hydra.sweep, resolve=False)
    launcher, sweeper = (_plugin_settings(values, name) for name in ("launcher", "sweeper"))
    # Resolved within the full configuration: the folders interpolate the run's name.
    settings = HydraSettings(values.hydra.run.dir, values.hydra.sweep.dir, str(sweep["subdir"]), sweeper, launcher)
    return values, settings


def compose_with_hydra(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Return what Hydra composes, with its own section; call it within :func:`hydra_ready`.

    Raises:
        ConfigError: for what Hydra raises for odd values of its own keys, which is of any kind.
    """
    for override in parse_overrides(overrides):
        is_choice = not sets_value(override) and "." not in (override.key_or_group or "")
        if is_choice and ".." in re.split(r"[/,\[\]\s]", str(override.value())):
            raise ConfigError(f"{override.input_line}: has a path; a choice is a file in conf/ or in --config-dir")
    try:
        with warnings.catch_warnings():
            # A folder of hydra.searchpath that does not exist.
            warnings.filterwarnings("error", ".*is not available")
            return hydra_compose(config_name, list(overrides), return_hydra_config=True)
    except Exception as error:
        raise ConfigError(explain(error, overrides)) from error


def _plugin_settings(values: DictConfig, name: str) -> dict[str, Any]:
    section = values.hydra[name]
    if not isinstance(section, DictConfig) or not isinstance(section.get("_target_"), str):
        raise ConfigError(f"hydra.{name}={shown_value(section)}: must be a group of keys; leave it out")
    return cast(dict[str, Any], OmegaConf.to_container(section, resolve=True))


def plain_values(values: DictConfig) -> dict[str, Any]:
    """Return composed values as nested plain values, with their references, without Hydra's own section."""
    plain = cast(dict[str, Any], OmegaConf.to_container(values, resolve=False))
    plain.pop("hydra", None)
    return plain


def checked(values: Mapping[str, Any]) -> Config:
    """Return the checked configuration of nested plain values, which may hold references, ``${key}``.

    Raises:
        ConfigError: as :func:`grulab.config.parse.parse`.
    """
    return within_budget(located(parse(_without_references(values))))


def _without_references(values: Mapping[str, Any]) -> Mapping[str, Any]:
    flat = flatten(values)
    references = {key: value for key, value in flat.items() if "${" in str(value)}
    for key, value in references.items():
        found = re.fullmatch(r"\$\{([\w.]+)\}", str(value))
        if found is None or found[1] not in flat or found[1] in references:
            return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(dict(values)), resolve=True))
        # OmegaConf takes milliseconds for this, which is the most common case, and a sweep has many jobs.
        flat[key] = flat[found[1]]
    return unflatten(flat) if references else values


def refuse_size_and_budget(budget_set: Any, overrides: Sequence[str]) -> None:
    """Reject a hidden size together with a parameter budget, which determines the hidden size.

    Args:
        budget_set: ``model.parameter_budget`` in the composed values.
        overrides: the user's overrides.

    Raises:
        ConfigError: if both are set.
    """
    lines = {key_of(line): line.lstrip("+") for line in overrides if not line.startswith("~")}
    size, budget = lines.get("model.hidden_size"), lines.get("model.parameter_budget")
    if budget is None and budget_set is not None:
        budget = f"model.parameter_budget={budget_set}"
    if size and budget and split_override(budget)[1] != "null":
        raise ConfigError(f"{size}: does not go with {budget}, which determines it; leave out one of them")


@contextmanager
def hydra_ready(overrides: Sequence[str]) -> Iterator[None]:
    """Initialise Hydra for composing, and convert its errors to ConfigError."""
    with initialize_config_dir(str(config_dir()), job_name="grulab", version_base="1.3"):
        try:
            yield
        except ConfigError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
            raise ConfigError(explain(error, overrides)) from error
