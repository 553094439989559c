"""Decide whether two configurations are the same run: which keys may change when a run is resumed."""

import dataclasses
import hashlib
import json
from collections.abc import Container, Mapping
from typing import Any

from grulab.config.schema import Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError

# These keys set how the same numbers are computed: they change the last bits at most, and nothing in a run that is
# done.
_HOW = frozenset(
    {
        "trainer.accelerator",
        "trainer.devices",
        "trainer.threads",
        "trainer.loop",
        "trainer.cuda_graphs",
        "model.backend",
        "model.sequences",
        "data.num_workers",
    }
)
# The others set how long a run trains, and where the sequences are; which they are is in data.content.
STOPPING = frozenset({"trainer.early_stopping_patience", "trainer.early_stopping_threshold"})
MAY_CHANGE = _HOW | STOPPING | {"trainer.max_epochs", "data.path", "data.labels"}


def differ_in_how_only(before: Config, after: Config) -> bool:
    """Return whether two configurations differ, and only in how the same numbers are computed."""
    differing = _differing(before.to_dict(), after.to_dict())
    return bool(differing) and differing <= _HOW


def refuse_another_run(before: Config, after: Config) -> None:
    """Check that two configurations are the same run.

    Raises:
        ConfigError: with a line for each changed key that may not change, with both values.
    """
    old, new = flatten(before.to_dict()), flatten(after.to_dict())
    lines = [
        f"{key}={shown_value(new.get(key))}: the run has {shown_value(old.get(key))}, and with another value "
        "it would be another run; leave it out, or start one with grulab train"
        for key in what_differs(old, new)
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def what_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys whose values make two configurations (nested plain values) different runs."""
    return sorted(_differing(before, after) - MAY_CHANGE)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    old, new = flatten(before), flatten(after)
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def run_hash(config: Config) -> str:
    """Return a hash of the configuration without ``name``: two configurations that make the same run share it."""
    return dataclasses.replace(config, name="any").hash()


def identity(config: Config, free: Container[str] = MAY_CHANGE) -> str:
    """Return a hash of what makes a run the run that it is: two that may go on as each other share it.

    Args:
        config: of the run.
        free: the keys that may differ.
    """
    values = {key: value for key, value in flatten(config.to_dict()).items() if key not in free and key != "name"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nest values with dotted keys: the inverse of :func:`flatten`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested
