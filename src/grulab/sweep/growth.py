"""A sweep that grows: which jobs of a command are in the sweep's folder already, and which are added to them."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grulab.config.same_run import MAY_CHANGE, flatten, identity, run_hash
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.expand import values_of_keys
from grulab.sweep.job import Job


def known_jobs(
    sweep_dir: Path, before: Sequence[Job], after: Sequence[Job], asked: Container[str], adds_seeds: bool
) -> dict[int, Job]:
    """Return the jobs of a sweep's folder that a command makes too, by their position in the command's.

    Args:
        sweep_dir: the sweep's folder.
        before: the jobs in the folder.
        after: the jobs of the command, which may be more; their numbers and folders do not count.
        asked: keys that the command overrides; those in ``MAY_CHANGE`` may have another value.
        adds_seeds: whether the sweeper has added seeds to those of the command.

    Raises:
        ConfigError: if the command makes other jobs, or fewer.
    """
    found = {
        place: before[old]
        for place, old in _matches([job.config for job in before], [job.config for job in after], asked).items()
    }
    matched = {job.number for job in found.values()}
    missing = [job for job in before if job.number not in matched]
    if adds_seeds:
        sibling_of = siblings([job.config for job in after])
        missing = [job for job in missing if sibling_of(job.config) is None]
    if not missing:
        pairs = [(job, after[place]) for place, job in found.items()]
        # The folder of a job stays where it is.
        new = [replace(job, folder=old.folder, number=old.number) for old, job in pairs]
        manifest.refuse_another_sweep(sweep_dir, [old for old, _ in pairs], new, asked)
        return found
    if before and after and not found:
        pairs = _alike(before, after)
        if pairs:
            manifest.refuse_another_sweep(sweep_dir, [old for old, _ in pairs], [new for _, new in pairs], asked)
        if len(before) == len(after):
            manifest.refuse_another_sweep(sweep_dir, before, after, asked)
    where = f"the sweep in {display_path(sweep_dir)}"
    left_out = _values_left_out(before, after)
    hint = f"name them too: {left_out}" if left_out else "leave out what changes them"
    raise ConfigError(
        f"{where} has {len(before)} jobs, and this command leaves out {len(missing)} of them, the first is "
        f"{missing[0].folder}; a sweep grows and does not shrink: {hint}, or begin another sweep with grulab train -m"
    )


def of_any_seed(config: Config, is_of_rungs: bool = False) -> str:
    """Return what the runs of a configuration with different seeds share; with rungs, whatever rung they are at."""
    config = replace(config, seed=0)
    if is_of_rungs:
        config = replace(config, trainer=replace(config.trainer, max_epochs=1))
    return run_hash(config)


def siblings(configs: Iterable[Config]) -> Callable[[Config], Config | None]:
    """Return a function that finds a run of the same configuration with another seed, or None.

    Keys that may change at a resume may differ, if that leaves one candidate only.
    """
    exact: dict[str, Config] = {}
    loose: dict[str, dict[str, Config]] = {}
    for config in configs:
        key = of_any_seed(config)
        exact.setdefault(key, config)
        loose.setdefault(identity(replace(config, seed=0)), {}).setdefault(key, config)

    def find(config: Config) -> Config | None:
        if found := exact.get(of_any_seed(config)):
            return found
        candidates = list(loose.get(identity(replace(config, seed=0)), {}).values())
        return candidates[0] if len(candidates) == 1 else None

    return find


def _matches(before: Sequence[Config], after: Sequence[Config], asked: Container[str]) -> dict[int, int]:
    """Return the positions of the same runs: position in ``after`` -> position in ``before``.

    First those that are equal, then those that are but for the keys that the command changes, and then those that may
    go on as each other, if there is one candidate only.
    """
    # A key with several values tells the jobs apart.
    values = [flatten(config.to_dict()) for config in after]
    changed = {key for key in MAY_CHANGE if key in asked and len({repr(own.get(key)) for own in values}) == 1}
    found: dict[int, int] = {}
    for key_of in (run_hash, lambda config: identity(config, changed), identity):
        old = _unique(key_of, before, set(found.values()))
        new = _unique(key_of, after, set(found))
        found |= {place: old[key] for key, place in new.items() if key in old}
    return found


def _alike(before: Sequence[Job], after: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Return pairs of jobs that differ in keys that are the same in all jobs of a side; [] if not all do."""
    old, new = ([flatten(job.config.to_dict()) for job in jobs] for jobs in (before, after))
    changed = {
        key
        for key in old[0].keys() | new[0].keys()
        if all(values.get(key) == old[0].get(key) for values in old)
        and all(values.get(key) == new[0].get(key) != old[0].get(key) for values in new)
    }

    def rest_of(values: dict[str, Any]) -> str:
        return repr(sorted((key, repr(value)) for key, value in values.items() if key not in changed))

    stored = {rest_of(values): job for values, job in zip(old, before, strict=True)}
    pairs = [
        (stored[rest], job) for values, job in zip(new, after, strict=True) if (rest := rest_of(values)) in stored
    ]
    return pairs if len(stored) == len(before) == len(pairs) else []


def _unique(key_of: Callable[[Config], str], configs: Sequence[Config], but: set[int]) -> dict[str, int]:
    keys = {place: key_of(config) for place, config in enumerate(configs) if place not in but}
    counts = Counter(keys.values())
    return {key: place for place, key in keys.items() if counts[key] == 1}


def _values_left_out(before: Iterable[Job], after: Iterable[Job]) -> str:
    """Return the overrides that name all values of the keys of which the command leaves some out."""
    old, new = (values_of_keys(job.overrides for job in jobs) for jobs in (before, after))
    words = []
    for key, values in old.items():
        if key in new and any(value not in new[key] for value in values):
            words.append(f"{key}={','.join(dict.fromkeys([*values, *new[key]]))}")
    return " ".join(words)
