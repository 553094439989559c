"""Which arguments of a sweep.json are followed: the file may come from anybody, and Hydra's keys can run code.

Hydra imports and calls what its own configuration names (``_target_``, logging handlers, callbacks, plug-ins, the
packages of its search path). So a stored argument may set the run's own keys, and of Hydra's keys those that a sweep
needs, one by one. What else a sweep was begun with has to be said again on the command line.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString

from grulab.config.overrides import is_about_hydra, key_of, parse_overrides
from grulab.config.schema import Config
from grulab.config.validation_messages import printable
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep.launcher_settings import LocalSettings
from grulab.sweep.sweeper_settings import GridSettings

CONFIG_DIR, CONFIG_NAME = "--config-dir", "--config-name"
# The groups of Hydra whose choices are names in conf/ and in Hydra's own and installed packages.
_HYDRA_GROUPS = {"hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/hydra_logging"}
_HYDRA_KEYS = {
    *(f"hydra.launcher.{name}" for name in LocalSettings.__annotations__),
    *(f"hydra.sweeper.{name}" for name in GridSettings.__annotations__),
    # Of the launcher of joblib, and of sweepers that search.
    "hydra.launcher.n_jobs",
    "hydra.sweeper.n_jobs",
    "hydra.sweeper.n_trials",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.job.config.override_dirname.exclude_keys",
    "hydra.verbose",
}
_NAME = re.compile(r"[\w.-]+")
# These resolvers read what is no part of the configuration, such as a variable of the environment.
_RESOLVER = re.compile(r"\$\{\s*oc\.")


def refuse_foreign(arguments: Sequence[str], sweep_dir: Path) -> None:
    """Check that the stored arguments of a sweep can do nothing but set keys of its runs and of a sweep.

    Args:
        arguments: of sweep.json, without those that the command line gives itself.
        sweep_dir: the sweep's folder.

    Raises:
        ConfigError: naming the first that could do more.
    """
    for argument in arguments:
        if not _is_harmless(argument):
            shown = shlex.quote(printable(argument))
            raise ConfigError(
                f"{sweep_dir / paths.SWEEP}: {shown} could run code, so a file's word is not enough; if you trust "
                f"it, say it yourself: grulab resume {display_path(sweep_dir)} {shown}"
            )


def _is_harmless(argument: str) -> bool:
    if argument.startswith("-"):
        flag, _, name = argument.partition("=")
        return flag == CONFIG_NAME and _NAME.fullmatch(name) is not None
    (override,) = parse_overrides([argument])
    key = key_of(argument)
    if override.package is not None or _RESOLVER.search(argument):
        return False
    if is_about_hydra(argument):
        if argument.startswith(("+", "~")) or key not in _HYDRA_GROUPS | _HYDRA_KEYS:
            return False
        is_group = key in _HYDRA_GROUPS
    else:
        is_group = "." not in key and key not in Config.__annotations__.keys() - {"data", "model"}
    values = list(_values(override))
    if is_group or key in ("data", "model", "optimizer", "trainer", "checkpoint"):
        # A choice with a path could name a file outside conf/.
        return all(value is None or (isinstance(value, str) and _NAME.fullmatch(value)) for value in values)
    return all(map(_is_plain, values))


def _values(override: Override) -> Iterator[Any]:
    """Return the value of an override, or the values that it sweeps over."""
    if override.is_choice_sweep() and isinstance(override.value(), ChoiceSweep):
        yield from (_text(value) for value in override.value().list)  # type: ignore[union-attr]
    elif not override.is_sweep_override():
        yield _text(override.value())


def _text(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _is_plain(value: Any) -> bool:
    """Return whether a value holds no ``_target_``, at any depth."""
    if isinstance(value, dict):
        return all(not str(_text(key)).startswith("_") and _is_plain(part) for key, part in value.items())
    return not isinstance(value, list) or all(map(_is_plain, value))
