"""Suggest the nearest existing key for a key that does not exist."""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence

from grulab.config.conf_dir import plugin_keys
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import find_task, imported_tasks


def unknown_key(override: str, valid: Sequence[str]) -> str:
    """Return the error line for a key that does not exist, with the nearest existing key.

    Args:
        override: the user's override, ``key=value``.
        valid: the keys that exist.
    """
    key = override.split("=", 1)[0]
    # Often only the section is missing or wrong: hidden_size for model.hidden_size.
    near = [name for name in valid if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
    if not near:
        alike = [name for name in valid if _place(name) == _place(key)]
        near = difflib.get_close_matches(key, alike, n=1, cutoff=0.5)
    owner = None if key in valid else _owner_of(key)
    if owner:
        hint = f"only {owner} {'have' if ',' in owner else 'has'} it"
    elif near and near[0] != key:
        hint = f"did you mean {near[0]}?"
    else:
        hint = "grulab train --help lists the keys"
    return f"{override}: no such key; {hint}"


def valid_keys(task: str | None) -> list[str]:
    """Return every dotted key of a configuration with this task; for an unknown task, the keys common to all."""
    try:
        data = find_task(task).config_class if isinstance(task, str) else DataConfig
    except ConfigError:
        data = DataConfig
    return list(_keys(Config, data))


def _keys(section: type, data: type, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(section):
        kind = data if field.name == "data" else field.type
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _keys(kind, data, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _place(key: str) -> str | bool:
    """Return what a key shares with those that may be meant: of Hydra's its section, else whether it has one."""
    section = key.rpartition(".")[0]
    return section if key.startswith("hydra.") else bool(section)


def _owner_of(key: str) -> str | None:
    """Return the tasks, or the first sweeper or launcher, that have the key, as an override, or None."""
    if key.startswith("data."):
        tasks = [task for task in imported_tasks() if key in valid_keys(task)]
        return f"data={','.join(tasks)}" if tasks else None
    return next((plugin for plugin, keys in plugin_keys().items() if key in keys), None)
