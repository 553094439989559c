"""The keys in which the jobs of a sweep differ: what is compared, what goes with it, and what repeats."""

from typing import Any

import pandas as pd

# Keys that are not compared although they may differ between jobs.
_NOT_SWEPT = ("name", "seed")
DATA_SEED = "data.seed"
_SOLVED = "model.hidden_size"
# The value of a key that a job does not have.
ABSENT = "absent"


def has_data_seeds(values: list[dict[str, Any]]) -> bool:
    """Return whether a configuration has several data seeds."""
    if len({job[DATA_SEED] for job in values}) < 2:
        return False
    found: dict[tuple[Any, ...], set[Any]] = {}
    for job in values:
        rest = tuple(sorted((key, repr(value)) for key, value in job.items() if key not in (*_NOT_SWEPT, DATA_SEED)))
        found.setdefault(rest, set()).add(job[DATA_SEED])
    return any(len(seeds) > 1 for seeds in found.values())


def axes(values: list[dict[str, Any]], is_solved: bool, repeat: str) -> tuple[list[str], list[str]]:
    """Return the swept keys, and the keys that are tied to a swept key.

    The effects of keys that always change together (zipped keys, or all keys of another task) cannot be separated, so
    only one of them counts as swept: the first key that every job has. The others are tied, except keys that some
    jobs lack, which get no column.

    Args:
        values: the configuration of each job, by dotted key.
        is_solved: whether the hidden size is computed from a parameter budget.
        repeat: the key of the repetitions.
    """
    keys = list(dict.fromkeys(["data.task", *(key for job in values for key in job)]))
    everywhere = [key for key in keys if all(key in job for job in values)]
    partitions = {
        key: tuple(pd.factorize(pd.Series([job.get(key, ABSENT) for job in values]))[0].tolist()) for key in keys
    }
    tasks = partitions["data.task"]
    seen: set[tuple[int, ...]] = set()
    swept, tied = [], []
    for key in [*everywhere, *(key for key in keys if key not in everywhere)]:
        differs = len(set(partitions[key])) > 1
        if key in (*_NOT_SWEPT, repeat) or not differs:
            continue
        if key.endswith("seed") and partitions[key] == partitions["seed"]:
            # Another seed that always changes together with the run's seed is not compared either.
            continue
        if key == _SOLVED and is_solved:
            tied.append(key)
            continue
        # Of three tasks, two may have the same value of a key, which is still the task's.
        is_of_task = key != "data.task" and len({*zip(tasks, partitions[key], strict=True)}) == len({*tasks})
        if partitions[key] not in seen and not (key.startswith("data.") and is_of_task):
            swept.append(key)
        elif key in everywhere:
            tied.append(key)
        seen.add(partitions[key])
    return swept, tied
