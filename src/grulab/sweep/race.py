"""A race: seeds come in rounds, and configurations that are worse than the best drop out.

Peers: irace (López-Ibáñez et al. 2016, https://doi.org/10.1016/j.orp.2016.09.002); ``experiments/simulation`` has the
error rates of this one beside those of Optuna's WilcoxonPruner.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grulab.config.overrides import key_of, split_override
from grulab.config.schema import is_higher_better
from grulab.config_error import ConfigError
from grulab.sweep.comparison import LEVEL, Comparison
from grulab.sweep.job import Job
from grulab.sweep.rungs import configurations

_FIRST_SEEDS = "seed=0,1,2"


@dataclass(frozen=True)
class Standing:
    """Where a race stands.

    Attributes:
        left: the keys of the configurations that are still in it, the best first.
        out: those that dropped out.
        round: number of the round that is over, from 1.
        is_over: whether no further round follows.
        why: it ended, in words; empty if it goes on.
    """

    left: list[str]
    out: list[str]
    round: int
    is_over: bool
    why: str


def with_seeds(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a race, with the seeds of its first round.

    Raises:
        ConfigError: if they name one seed only.
    """
    given = [line for line in arguments if key_of(line) == "seed"]
    if not given:
        return [*arguments, _FIRST_SEEDS]
    value = split_override(given[-1])[1]
    if value.lstrip("+-").isdigit():
        raise ConfigError(f"{given[-1]}: a race compares seeds; leave it out, or name its first ones: {_FIRST_SEEDS}")
    return list(arguments)


def standing(jobs: Sequence[Job], scores: Mapping[int, float], indifference: float, max_jobs: int) -> Standing:
    """Return which configurations are still in a race.

    Round by round as it was run, so that the same folders give the same answer: after the first seeds, and after each
    further one, the configurations that are worse than the best drop out. The level of 5 % is divided over all
    comparisons of a round, and over all rounds as 6 / (pi round)^2, which sums to 1 whatever their number.

    Args:
        jobs: of the race; a configuration of which a first job has no score is not in it.
        scores: the monitored metric of each job that is done, by its number.
        indifference: it is over when those that are left differ by less.
        max_jobs: it is over when another round would make more jobs.
    """
    sign = 1 if jobs and is_higher_better(jobs[0].config.checkpoint.monitor) else -1
    members = {
        key: [sign * scores[job.number] for job in sorted(group, key=lambda job: job.number) if job.number in scores]
        for key, group in configurations(jobs).items()
    }
    first = _seeds_of_first_round(jobs)
    left = [key for key, values in members.items() if len(values) >= first]
    used = {key: values[:first] for key, values in members.items() if values}
    number = 1
    while True:
        keys = [key for key in used if len(used[key]) >= 1]
        compared = Comparison.of([used[key] for key in keys])
        # Of those that have dropped out, only the variances count.
        inside = [keys.index(key) for key in left]
        own = Comparison(
            compared.means[inside], compared.counts[inside], compared.variances[inside], compared.freedom
        )
        worse = {left[place] for place in own.worse(LEVEL * 6 / (math.pi * number) ** 2)}
        order = np.argsort(-own.means, kind="stable")
        left = [left[place] for place in order if left[place] not in worse]
        if len(left) <= 1:
            return _over(left, members, number, "one configuration is left")
        own = Comparison.of([used[key] for key in left])
        gained = max(own.most_gained(place) for place in range(len(left)))
        if gained < indifference:
            return _over(left, members, number, f"those that are left differ by less than {indifference:g}")
        if any(len(members[key]) <= len(used[key]) for key in left):
            # The next round has not been run.
            if len(jobs) + len(left) > max_jobs:
                return _over(left, members, number, f"another round would make more than {max_jobs} jobs")
            return Standing(left, [key for key in members if key not in left], number, False, "")
        used |= {key: members[key][: len(used[key]) + 1] for key in left}
        number += 1


def next_round(jobs: Sequence[Job], left: Sequence[str]) -> list[Job]:
    """Return the jobs of a race with one more seed for each configuration that is left, without folders."""
    groups = configurations(jobs)
    number, added = max(job.number for job in jobs) + 1, []
    for key in left:
        group = groups[key]
        seed = max(job.config.seed for job in group) + 1
        overrides = [line for line in group[0].overrides if key_of(line) != "seed"]
        last = max(job.config.trainer.max_epochs for job in group)
        config = replace(group[0].config, seed=seed, trainer=replace(group[0].config.trainer, max_epochs=last))
        added.append(Job(number, "", [*overrides, f"seed={seed}"], config))
        number += 1
    return [*jobs, *added]


def _seeds_of_first_round(jobs: Sequence[Job]) -> int:
    return min(len(group) for group in configurations(jobs).values())


def _over(left: list[str], members: Mapping[str, object], number: int, why: str) -> Standing:
    return Standing(left, [key for key in members if key not in left], number, True, why)
