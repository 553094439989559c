"""Read the configuration stored in a run's folder, without conf/ and, if possible, without torch."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grulab.config.hydra_errors import explain
from grulab.config.overrides import parse_overrides, sets_value, written
from grulab.config.parameter_budget import within_budget
from grulab.config.parse import located, parse
from grulab.config.same_run import flatten, refuse_another_run, unflatten
from grulab.config.schema import Config
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import read_summary
from grulab.system.printable import printable
from grulab.system.regular_file import read_regular
from grulab.tasks.registry import find_task

_MAX_YAML_BYTES = 2**16
# Of a value with the values of other keys in it.
_MAX_TEXT = 1000


def resumed_config(run_dir: Path, overrides: Sequence[str]) -> Config:
    """Return the configuration for resuming a run: its stored configuration with the overrides applied.

    Raises:
        ConfigError: if the folder holds no run, or an override changes a key that may not change.
    """
    before = stored_config(run_dir)
    after = located(parse(_override_values(before.to_dict(), overrides)))
    refuse_another_run(before, after)
    return after


def stored_config(run_dir: Path) -> Config:
    """Return the configuration stored in a run's folder.

    Raises:
        ConfigError: if the folder does not exist or holds no run.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: {'is a file, and no folder' if run_dir.exists() else 'no such folder'}")
    if os.path.lexists(run_dir / paths.SWEEP):
        raise ConfigError(
            f"{run_dir}: is a sweep's folder; go on with grulab resume {display_path(run_dir)}, or name a job's"
        )
    summary = read_summary(run_dir)
    if summary is not None:
        return parse_stored(summary["config"], run_dir / paths.SUMMARY)
    composed = run_dir / paths.COMPOSED_CONFIG
    if composed.exists():
        # The run was stopped before it wrote summary.json, or summary.json was damaged later.
        try:
            return within_budget(parse_stored(_composed_values(composed), composed))
        except ConfigError:
            if not any((run_dir / paths.CHECKPOINTS).glob("*.ckpt")):
                raise
    if (run_dir / paths.CHECKPOINTS).is_dir():
        # These modules import torch; only a folder that has lost the other files needs them.
        from grulab.run_folder.checkpoint_file import KEY
        from grulab.run_folder.checkpoint_folder import newest_good

        if found := newest_good(run_dir / paths.CHECKPOINTS):
            return parse_stored(found[1][KEY]["config"], found[0])
    if any(run_dir.glob(f"*/{paths.SUMMARY}")):
        raise ConfigError(
            f"{run_dir}: holds runs, but no {paths.SWEEP}; give the sweep's command once more with "
            f"hydra.sweep.dir={display_path(run_dir)}, and it goes on"
        )
    raise ConfigError(f"{run_dir}: is not a run's folder: no summary.json, .hydra or checkpoints tells what it is")


def stored_overrides(run_dir: Path) -> list[str]:
    """Return the overrides with which Hydra started a run; [] if its file is missing or is no list of texts."""
    try:
        values = _read_yaml(run_dir / ".hydra" / "overrides.yaml")
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []


def _composed_values(path: Path) -> dict[str, Any]:
    """Return the values in Hydra's config.yaml, with ``${key}`` replaced by the value of that key.

    OmegaConf would also read variables of the environment, and fill the memory with values that repeat each other.

    Raises:
        ConfigError: if the file cannot be read, or a value refers to anything but a plain value.
    """
    try:
        values = _read_yaml(path)
        if not isinstance(values, dict):
            raise ValueError("holds no group of keys")
        flat = flatten(values)
        return unflatten({key: _filled_in(value, flat) for key, value in flat.items()})
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        cause = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read ({printable(str(cause))}); begin anew with grulab train") from None


def _filled_in(value: Any, values: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or "${" not in value:
        return value

    def text_of(match: re.Match[str]) -> str:
        found = values.get(match[1])
        if isinstance(found, list) or "${" in (text := written(found)) or match[1] not in values:
            raise ValueError(f"{value:.100}: refers to what is no plain value")
        return text

    whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
    text = re.sub(r"\$\{([\w.]+)\}", text_of, value[:_MAX_TEXT])
    if "${" in text or len(value) > _MAX_TEXT:
        raise ValueError(f"{value:.100}: refers to what is no plain value")
    return values[whole[1]] if whole else text


class _NoAliases(yaml.SafeLoader):
    """A reader of YAML that refuses aliases: with them a short file makes more values than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has an alias")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> Any:
    return yaml.load(read_regular(path, _MAX_YAML_BYTES), _NoAliases)


def parse_stored(values: Mapping[str, Any], path: Path) -> Config:
    """Return the checked configuration from a file of a run or a sweep.

    Args:
        values: the configuration.
        path: the file.

    Raises:
        ConfigError: if the values do not match this version's schema; each line names the file.
    """
    data = values.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("task"), str):
        try:
            find_task(data["task"])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    try:
        return parse(values)
    except ConfigError as error:
        lines = str(error).splitlines()
        lines = [f"{path}: was written by another version of grulab, or changed: {line}" for line in lines]
        raise ConfigError("\n".join(lines)) from None


def _override_values(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested values with overrides of existing keys applied, without conf/.

    Raises:
        ConfigError: if an override cannot be parsed, or its key does not exist.
    """
    changed = OmegaConf.create(dict(values))
    try:
        for override in parse_overrides(overrides):
            line = str(override.input_line)
            if not sets_value(override) or override.is_sweep_override():
                raise ConfigError(f"{line}: cannot change here; only single values can, as key=value")
            if OmegaConf.select(changed, override.key_or_group, default=changed) is changed:
                raise ConfigError(unknown_key(line, valid_keys(values["data"]["task"])))
            OmegaConf.update(changed, override.key_or_group, override.value())
        return cast(dict[str, Any], OmegaConf.to_container(changed, resolve=True))
    except ConfigError:
        raise
    # A ValueError for a number of thousands of digits.
    except (HydraException, OmegaConfBaseException, RecursionError, ValueError) as error:
        raise ConfigError(explain(error, overrides)) from None
