"""Compose the checked configuration of a run from overrides, before anything starts. Does not import torch."""

from collections.abc import Iterator, Sequence
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
from grulab.config.overrides import key_of, parse_overrides, split_override
from grulab.config.parameter_budget import within_budget
from grulab.config.parse import parse
from grulab.config.schema import Config
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
        return checked(values), settings


def compose_values(overrides: Sequence[str], config_name: str) -> tuple[DictConfig, HydraSettings]:
    """Return the unchecked values that Hydra composes, and Hydra's settings; call it within :func:`hydra_ready`."""
    for key, value in map(split_override, overrides):
        if key == "data.task" and value in groups()["data"] and value != chosen_task(overrides):
            raise ConfigError(f"{key}={value}: brings none of its other keys; write data={value}")
    values = hydra_compose(config_name, list(overrides), return_hydra_config=True)
    data = values.get("data")
    if isinstance(data, DictConfig) and ("task" not in data or OmegaConf.is_missing(data, "task")):
        # The name, and with it the folders, refer to it.
        raise ConfigError("data.task: has no value; give it the name of a task")
    sweep: Any = OmegaConf.to_container(values.hydra.sweep, resolve=False)
    sweeper: Any = OmegaConf.to_container(values.hydra.sweeper, resolve=True)
    launcher: Any = OmegaConf.to_container(values.hydra.launcher, resolve=True)
    # Resolved within the full configuration: the folders interpolate the run's name.
    settings = HydraSettings(values.hydra.run.dir, values.hydra.sweep.dir, str(sweep["subdir"]), sweeper, launcher)
    return values, settings


def checked(values: DictConfig) -> Config:
    """Return the checked configuration of composed values, without Hydra's own section.

    Raises:
        ConfigError: as :func:`grulab.config.parse.parse`.
    """
    OmegaConf.set_struct(values, False)
    values.pop("hydra", None)
    return within_budget(parse(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True))))


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
            raise ConfigError(explain(error, overrides)) from None
