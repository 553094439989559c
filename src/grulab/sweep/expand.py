"""Expand a sweep into jobs: ``-m a=1,2 b=3,4`` becomes every combination, or pairs of values for zipped keys."""

import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError


def expand(arguments: Sequence[str], side_by_side: Any = None) -> list[list[str]]:
    """Return the overrides of each job.

    Args:
        arguments: overrides; several values are swept, and a later override replaces an earlier one of the same key.
        side_by_side: zipped keys: their first values form a job, their second values another, and so on; or a list of
            lists of such keys.

    Raises:
        ConfigError: if a zipped key is not swept, or the zipped keys have different numbers of values.
    """
    values: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        values[str(override.get_key_element())] = _values(override)
    axes: dict[str, list[tuple[str, ...]]] = {key: [(line,) for line in lines] for key, lines in values.items()}
    for keys in _groups(side_by_side):
        written = f"hydra.sweeper.zip=[{','.join(keys)}]"
        for key in keys:
            if len(axes.get(key, [])) < 2:
                raise ConfigError(f"{written}: {key} is not swept, or goes side by side with others already")
        counts = {key: len(values[key]) for key in keys}
        if len(set(counts.values())) > 1:
            many = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise ConfigError(f"{written}: side by side, keys need equally many values, but there are {many}")
        axes[keys[0]] = list(zip(*(values[key] for key in keys), strict=True))
        for key in keys[1:]:
            del axes[key]
    return [list(itertools.chain(*point)) for point in itertools.product(*axes.values())]


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: is a range without steps; list the values, or choose a sweeper that searches"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _groups(side_by_side: Any) -> list[list[str]]:
    if isinstance(side_by_side, str):
        raise ConfigError(f"hydra.sweeper.zip={side_by_side}: must be a list of keys, or of such lists")
    groups = list(side_by_side or [])
    if groups and all(isinstance(key, str) for key in groups):
        groups = [groups]
    if not all(not isinstance(group, str) and all(isinstance(key, str) for key in group) for group in groups):
        raise ConfigError(f"hydra.sweeper.zip={shown_value(side_by_side)}: must be a list of keys, or of such lists")
    return [list(group) for group in groups]
