"""Expand a sweep into jobs: ``-m a=1,2 b=3,4`` becomes every combination, or pairs of values for zipped keys."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep

from grulab.config.overrides import split_override
from grulab.config_error import ConfigError
from grulab.system.printable import printable


def expand(arguments: Sequence[str], zipped: Sequence[Sequence[str]] | None, max_jobs: int) -> list[list[str]]:
    """Return the overrides of each job.

    Args:
        arguments: overrides; several values are swept, and a later override replaces an earlier one of the same key.
        zipped: lists of keys: the first values of the keys of a list form a job, their second values another, ...
        max_jobs: the largest number of jobs that a sweep may have.

    Raises:
        ConfigError: if a zipped key is not swept, the zipped keys have different numbers of values, or there are too
            many jobs.
    """
    overrides = {
        str(override.get_key_element()): override
        for override in OverridesParser.create().parse_overrides(list(arguments))
    }
    zipped = zipped or []
    about = {key: _about(override) for key, override in overrides.items()}
    for keys in zipped:
        for key in set(keys[1:]) & about.keys():
            about[key] = 1
    if (jobs := math.prod(about.values())) > max_jobs:
        most = str(overrides[max(about, key=lambda key: about[key])].input_line)
        raise ConfigError(
            f"{printable(most)}: makes {jobs:,} jobs in all, and hydra.sweeper.max_jobs={max_jobs}; "
            "name fewer values, or raise it"
        )
    values = {key: _values(override) for key, override in overrides.items()}
    axes: dict[str, list[tuple[str, ...]]] = {key: [(line,) for line in lines] for key, lines in values.items()}
    for keys in zipped:
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


def values_of_keys(jobs: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Return the different values that each key has in the overrides of some jobs, in the order of the jobs."""
    values: dict[str, dict[str, None]] = {}
    for overrides in jobs:
        for key, value in map(split_override, overrides):
            values.setdefault(key, {})[value] = None
    return {key: list(found) for key, found in values.items()}


def _about(override: Override) -> int:
    """Return the number of values of an override without making them: of a range of floats, give or take one.

    Raises:
        ConfigError: if they cannot be counted.
    """
    if not override.is_sweep_override():
        return 1
    if override.is_choice_sweep() and not isinstance(override.value(), Glob):
        return len(cast(ChoiceSweep, override.value()).list)
    if not override.is_range_sweep():
        kind = "is a pattern" if isinstance(override.value(), Glob) else "is a range without steps"
        raise ConfigError(
            f"{override.input_line}: {kind}; list the values, or search between them with hydra/sweeper=optuna"
        )
    swept = cast(RangeSweep, override.value())
    start, stop, step = (float(cast(float, part)) for part in (swept.start, swept.stop, swept.step))
    if not all(map(math.isfinite, (start, stop, step))) or step == 0:
        raise ConfigError(f"{override.input_line}: has no last value; write range(start,stop,step)")
    return max(0, math.ceil((stop - start) / step))


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
