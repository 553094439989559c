"""Which arguments of a sweep.json are followed: the file may come from anybody, and Hydra's keys can run code.

Hydra imports and calls what its own configuration names (``_target_``, logging handlers, callbacks, plug-ins, the
packages of its search path). So a stored argument may set the run's own keys, and of Hydra's keys those that a sweep
needs, one by one. What else a sweep was begun with has to be said again on the command line.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException

from grulab.config.overrides import is_about_hydra, key_of, parse_overrides, written
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep.launcher_settings import LocalSettings
from grulab.sweep.ray_settings import RaySettings
from grulab.sweep.slurm_settings import SUBMISSION_KEYS, SlurmSettings
from grulab.sweep.sweeper_settings import DEFAULT_MAX_JOBS, RaceSettings, SearchSettings
from grulab.system.printable import printable

CONFIG_DIR, CONFIG_NAME = "--config-dir", "--config-name"
# Of Hydra's groups, the choices that write where grulab has looked first, and nothing else.
_HYDRA_CHOICES = {
    *(f"hydra/launcher={name}" for name in ("local", "slurm", "ray", "basic", "joblib")),
    *(f"hydra/sweeper={name}" for name in ("grid", "race", "optuna", "basic")),
    "hydra/job_logging=grulab",
}
_SWEEPER_KEYS = {field.name for settings in (RaceSettings, SearchSettings) for field in fields(settings)}
_LAUNCHER_KEYS = {
    field.name for settings in (LocalSettings, SlurmSettings, RaySettings) for field in fields(settings)
}
_SUBDIR = "hydra.sweep.subdir"
_PARAMS, _MAX_JOBS = "hydra.sweeper.params", "hydra.sweeper.max_jobs"
_HYDRA_KEYS = {
    *(f"hydra.launcher.{name}" for name in _LAUNCHER_KEYS.difference(SUBMISSION_KEYS)),
    *(f"hydra.sweeper.{name}" for name in _SWEEPER_KEYS - {"max_jobs", "params"}),
    # Of joblib's launcher.
    "hydra.launcher.n_jobs",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.job.config.override_dirname.exclude_keys",
    "hydra.job.chdir",
    "hydra.verbose",
}
_NAME = re.compile(r"[\w-][\w.-]*")
# What the name of a job's folder may refer to: keys, and no resolvers.
_REFERENCE = re.compile(r"\$\{[\w.]+\}")
# Hydra's parser takes seconds for a longer one.
MAX_CHARACTERS = 10_000


def refuse_foreign(
    arguments: Sequence[str], sweep_dir: Path, asked: Sequence[str] = (), verb: str = "resume"
) -> None:
    """Check that the stored arguments of a sweep can do nothing but set keys of its runs and of a sweep.

    Args:
        arguments: of sweep.json, without those that the command line gives itself.
        sweep_dir: the sweep's folder.
        asked: the words of the command line after the folder, for the command that is offered.
        verb: of that command.

    Raises:
        ConfigError: naming all that could do more.
    """
    refused = foreign(arguments)
    if refused:
        shown = " ".join(_quoted(printable(argument)) for argument in refused)
        raise ConfigError(
            f"{sweep_dir / paths.SWEEP}: {shown} is not taken from a file, since it could run code; if you trust it, "
            f"say it yourself: grulab {verb} {display_path(sweep_dir)} {' '.join([shown, *map(shlex.quote, asked)])}"
        )


def resume_command(sweep_dir: Path, arguments: Sequence[str]) -> str:
    """Return the command that goes on with a sweep: what is taken from no file has to be said again.

    Args:
        sweep_dir: the sweep's folder.
        arguments: those that it was begun with.
    """
    words = []
    for word in foreign(arguments):
        flag, _, folder = word.partition("=")
        words.append(f"{flag}={display_path(Path(folder))}" if flag == CONFIG_DIR else _quoted(word))
    return " ".join(["grulab resume", display_path(sweep_dir), *words])


def _quoted(word: str) -> str:
    """Quote a word for the shell so that it can be read: one with single quotes in double quotes, if it can be."""
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


def foreign(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that could do more than set keys of a sweep's runs and of a sweep."""
    return [argument for argument in arguments if not _is_harmless(argument)]


def _is_harmless(argument: str) -> bool:
    if len(argument) > MAX_CHARACTERS:
        return False
    if argument.startswith("-"):
        flag, _, name = argument.partition("=")
        return flag == CONFIG_NAME and _NAME.fullmatch(name) is not None
    return _sets_key_of_sweep(argument) if is_about_hydra(argument) else _sets_key_of_run(argument)


def _sets_key_of_run(argument: str) -> bool:
    """Return whether an argument only sets a key of the run, or chooses one of the files in conf/ for it."""
    override = _parse(argument)
    # Values that refer to each other can fill the memory.
    if override is None or override.package is not None or "${" in argument:
        return False
    is_group = "." not in key_of(argument) and key_of(argument) not in ("name", "seed")
    return _is_plain_choice(override) if is_group else all(map(_is_plain, _values(override)))


def _sets_key_of_sweep(argument: str) -> bool:
    override, key = _parse(argument), key_of(argument)
    if override is None or override.package is not None or argument.startswith(("+", "~")):
        return False
    if key == _SUBDIR:
        return "${" not in _REFERENCE.sub("", argument)
    if "${" in argument:
        return False
    if key == _MAX_JOBS:
        # A limit that the file could raise would be none.
        return type(override.value()) is int and override.value() <= DEFAULT_MAX_JOBS  # type: ignore[operator]
    if key == _PARAMS or key.startswith(f"{_PARAMS}."):
        return _sweeps_keys_of_run(key.removeprefix(_PARAMS).removeprefix("."), override)
    return argument in _HYDRA_CHOICES or (key in _HYDRA_KEYS and all(map(_is_plain, _values(override))))


def _sweeps_keys_of_run(key: str, override: Override) -> bool:
    """Return whether the swept values of ``hydra.sweeper.params`` are of keys of the run: they become arguments."""
    if override.is_sweep_override():
        return False
    value = override.value()
    params = {key: value} if key else value
    if not isinstance(params, dict):
        return params is None
    return all(_is_key_of_run(f"{name}={written(part)}") for name, part in params.items())


def _is_key_of_run(line: str) -> bool:
    return not is_about_hydra(line) and not line.startswith(("-", "_")) and _sets_key_of_run(line)


def _parse(argument: str) -> Override | None:
    try:
        return parse_overrides([argument])[0]
    except (HydraException, ConfigError, RecursionError):
        return None


def _is_plain_choice(override: Override) -> bool:
    """Return whether the choices are names; one with a path could be a file outside conf/."""
    return all(value is None or (isinstance(value, str) and _NAME.fullmatch(value)) for value in _values(override))


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
