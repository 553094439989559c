"""Successive halving: all jobs train to a first number of epochs, and the best go on from where they stand.

Jamieson and Talwalkar 2016 (https://arxiv.org/abs/1502.07943), with two changes (measured for issue 13): the best
are taken within each value of the tuned keys, because a small learning rate starts slowly and is not worse for that;
and a configuration goes on with all its seeds or none.
"""

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from grulab.config.same_run import flatten
from grulab.config.schema import Config, is_higher_better
from grulab.sweep.growth import of_any_seed
from grulab.sweep.job import Job

# Ranks after fewer epochs than this share of the last rung often mislead.
_EARLY = 6
_POOR_AGREEMENT = 0.3
_FEWEST_RANKED = 3
# What differs between the jobs of a sweep with rungs because of them.
OF_RUNGS = {"trainer.max_epochs", "optimizer.horizon"}
# As in conf/hydra/sweeper/.
_KEEP = 0.33

# (job, epochs) -> its monitored metric after so many epochs, of the best epoch; None if it has not got there.
ScoreAt = Callable[[Job, int], float | None]


def at_first_rung(config: Config, rungs: Sequence[int] | None) -> Config:
    """Return a job's configuration at the start of a sweep with rungs: the schedule is that of the last rung."""
    if not rungs:
        return config
    optimizer = config.optimizer
    if optimizer.schedule != "constant":
        optimizer = replace(optimizer, horizon=rungs[-1])
    return until(replace(config, optimizer=optimizer), rungs[0])


def at_rung_of(before: Config, after: Config, rungs: Sequence[int] | None) -> Config:
    """Return a job's configuration in a sweep that goes on: at the rung that it has reached.

    Args:
        before: the configuration in sweep.json.
        after: that of the command.
        rungs: of the command.
    """
    if not rungs:
        return after
    return until(after, next((rung for rung in rungs if rung >= before.trainer.max_epochs), rungs[-1]))


def promoted(
    jobs: Sequence[Job], score_at: ScoreAt, rungs: Sequence[int], keep: float, tune: Sequence[str]
) -> list[Job] | None:
    """Return the jobs after the next promotion; None if nothing goes on.

    It depends on the folders alone, so a sweep that was killed goes on in the same way. Nothing is taken back: if
    jobs are added to a sweep, those that are good enough follow. The seeds that all have are compared.

    Args:
        jobs: all jobs of the sweep, each with the number of epochs of the rung that it has reached.
        score_at: the score of a job after so many epochs.
        rungs: numbers of epochs.
        keep: the share of configurations that goes on.
        tune: the keys within each of whose values the best are taken.
    """
    for rung, following in pairwise(rungs):
        reached = [job for job in jobs if job.config.trainer.max_epochs >= rung]
        chosen = {job.number for group in _groups(reached, tune) for job in _best(group, score_at, rung, keep)}
        if any(job.number in chosen and job.config.trainer.max_epochs == rung for job in reached):
            return [_promoted(job, following) if job.number in chosen else job for job in jobs]
    return None


def notes_on_rungs(rungs: Sequence[int] | None, keep: float) -> list[str]:
    """Return a line if the first rung is early, or the share that goes on has no effect."""
    if not rungs:
        return [f"hydra.sweeper.keep={keep:g} has no effect without hydra.sweeper.rungs"] * (keep != _KEEP)
    if rungs[0] * _EARLY >= rungs[-1]:
        return []
    return [
        f"hydra.sweeper.rungs={list(rungs)}: {rungs[0]} epochs are under a sixth of the last rung, and such early "
        "ranks often mislead: small learning rates start slowly"
    ]


def note_on_agreement(jobs: Sequence[Job], score_at: ScoreAt, rung: int, following: int) -> list[str]:
    """Return a line if the ranks after two rungs hardly agree, over the configurations that reached the second."""
    groups = configurations([job for job in jobs if job.config.trainer.max_epochs >= following], is_of_rungs=True)
    seeds = _common_seeds(groups.values())
    means = [[_mean(own, seeds, score_at, epochs) for epochs in (rung, following)] for own in groups.values()]
    pairs = [pair for pair in means if None not in pair]
    if len(pairs) < _FEWEST_RANKED:
        return []
    ranks = np.argsort(np.argsort(np.array(pairs, dtype=np.float64), axis=0), axis=0)
    agreement = float(np.asarray(np.corrcoef(ranks.T))[0, 1])
    if agreement >= _POOR_AGREEMENT:
        return []
    return [
        f"the ranks after {rung} and after {following} epochs hardly agree (correlation {agreement:.2f} over "
        f"{len(pairs)} configurations): better ones may have been stopped at {rung}"
    ]


def in_first_share(configurations: int, keep: float) -> int:
    """Return how many of so many configurations go on: 0.33 of 3 is 1."""
    return max(1, math.ceil(round(keep * configurations, 1)))


def configurations(jobs: Sequence[Job], is_of_rungs: bool) -> dict[str, list[Job]]:
    """Return the jobs of each configuration: those that differ in their seed only, and with rungs in their rung."""
    members: dict[str, list[Job]] = {}
    for job in jobs:
        members.setdefault(of_any_seed(job.config, is_of_rungs), []).append(job)
    return members


def _groups(jobs: Sequence[Job], tune: Sequence[str]) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        values = flatten(job.config.to_dict())
        groups.setdefault(repr([values[key] for key in tune]), []).append(job)
    return list(groups.values())


def _best(jobs: Sequence[Job], score_at: ScoreAt, epochs: int, keep: float) -> list[Job]:
    """Return the jobs of the best configurations; one of which a job has no score is none of them."""
    groups = configurations(jobs, is_of_rungs=True)
    seeds = _common_seeds(groups.values())
    means = {key: mean for key, own in groups.items() if (mean := _mean(own, seeds, score_at, epochs)) is not None}
    sign = -1 if is_higher_better(jobs[0].config.checkpoint.monitor) else 1
    count = in_first_share(len(groups), keep)
    return [job for key in sorted(means, key=lambda key: sign * means[key])[:count] for job in groups[key]]


def _common_seeds(groups: Iterable[Sequence[Job]]) -> set[int]:
    seeds = [{job.config.seed for job in members} for members in groups]
    return set.intersection(*seeds) if seeds else set()


def _mean(members: Sequence[Job], seeds: Container[int], score_at: ScoreAt, epochs: int) -> float | None:
    scores = [score_at(job, epochs) for job in members if job.config.seed in seeds]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known and len(known) == len(scores) else None


def _promoted(job: Job, epochs: int) -> Job:
    return replace(job, config=until(job.config, max(epochs, job.config.trainer.max_epochs)))


def until(config: Config, epochs: int) -> Config:
    """Return a configuration that trains to another number of epochs."""
    return replace(config, trainer=replace(config.trainer, max_epochs=epochs))
