"""Read the configuration stored in a run's folder, without conf/ and, if possible, without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grulab.config.compose import checked
from grulab.config.hydra_errors import explain
from grulab.config.overrides import parse_overrides, sets_value
from grulab.config.parse import parse
from grulab.config.same_run import refuse_another_run
from grulab.config.schema import Config
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import read_summary
from grulab.tasks.registry import find_task


def resumed_config(run_dir: Path, overrides: Sequence[str]) -> Config:
    """Return the configuration for resuming a run: its stored configuration with the overrides applied.

    Raises:
        ConfigError: if the folder holds no run, or an override changes a key that may not change.
    """
    before = stored_config(run_dir)
    after = parse(_override_values(before.to_dict(), overrides))
    refuse_another_run(before, after)
    return after


def stored_config(run_dir: Path) -> Config:
    """Return the configuration stored in a run's folder.

    Raises:
        ConfigError: if the folder does not exist or holds no run.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: no such folder")
    if (run_dir / paths.SWEEP).exists():
        raise ConfigError(
            f"{run_dir}: is a sweep's folder; go on with grulab resume {display_path(run_dir)}, or name a job's"
        )
    summary = read_summary(run_dir)
    if summary is not None:
        return parse_stored(summary["config"], run_dir / paths.SUMMARY)
    composed = run_dir / paths.COMPOSED_CONFIG
    if composed.is_file():
        # The run was stopped before it wrote summary.json, or summary.json was damaged later.
        values = OmegaConf.load(composed)
        assert isinstance(values, DictConfig)
        return checked(values)
    if (run_dir / paths.CHECKPOINTS).is_dir():
        # These modules import torch; only a folder that has lost the other files needs them.
        from grulab.run_folder.checkpoint_file import KEY
        from grulab.run_folder.checkpoint_folder import newest_good

        if found := newest_good(run_dir / paths.CHECKPOINTS):
            return parse_stored(found[1][KEY]["config"], found[0])
    raise ConfigError(f"{run_dir}: is not a run's folder: no summary.json, .hydra or checkpoints tells what it is")


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
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from None
    return cast(dict[str, Any], OmegaConf.to_container(changed, resolve=True))
