"""A sweep that grows: which jobs of a command are in the sweep's folder already, and which are added to them."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from grulab.config.overrides import split_override
from grulab.config.same_run import identity
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
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
    stored = {identity(job.config): job for job in before}
    found = {place: stored[key] for place, job in enumerate(after) if (key := identity(job.config)) in stored}
    matched = {job.number for job in found.values()}
    missing = [job for job in before if job.number not in matched]
    if adds_seeds:
        configurations = {of_any_seed(job.config) for job in after}
        missing = [job for job in missing if of_any_seed(job.config) not in configurations]
    if not missing:
        pairs = [(job, after[place]) for place, job in found.items()]
        # The folder of a job stays where it is.
        new = [replace(job, folder=old.folder, number=old.number) for old, job in pairs]
        manifest.refuse_another_sweep(sweep_dir, [old for old, _ in pairs], new, asked)
        return found
    if not found and len(before) == len(after):
        manifest.refuse_another_sweep(sweep_dir, before, after, asked)
    where = f"the sweep in {display_path(sweep_dir)}"
    left_out = _values_left_out(before, after)
    hint = f"name them too: {left_out}" if left_out else "leave out what changes them"
    raise ConfigError(
        f"{where} has {len(before)} jobs, and this command leaves out {len(missing)} of them, the first is "
        f"{missing[0].folder}; a sweep grows and does not shrink: {hint}, or begin another sweep with grulab train -m"
    )


def of_any_seed(config: Config) -> str:
    """Return what the runs of a configuration with different seeds share."""
    return identity(replace(config, seed=0))


def _values_left_out(before: Iterable[Job], after: Iterable[Job]) -> str:
    """Return the overrides that name all values of the keys of which the command leaves some out."""
    old, new = _values(before), _values(after)
    words = []
    for key, values in old.items():
        if key in new and any(value not in new[key] for value in values):
            words.append(f"{key}={','.join(dict.fromkeys([*values, *new[key]]))}")
    return " ".join(words)


def _values(jobs: Iterable[Job]) -> dict[str, list[str]]:
    values: dict[str, dict[str, None]] = {}
    for job in jobs:
        for key, value in map(split_override, job.overrides):
            values.setdefault(key, {})[value] = None
    return {key: list(found) for key, found in values.items()}
