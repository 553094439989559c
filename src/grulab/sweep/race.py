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
        number: of the round that is over, from 1.
        is_over: whether no further round follows.
        why: it ended, in words; empty if it goes on.
    """

    left: list[str]
    out: list[str]
    number: int
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

    It is told round by round, so that the same folders give the same answer: after the first seeds, and after each
    further one, the configurations that are worse than the best drop out. The level of 5 % is divided over the
    comparisons of a round, and over the rounds as 6 / (pi round)^2, which sums to 1 however many there are.

    Args:
        jobs: of the race; a configuration of which a job has no score is out.
        scores: the monitored metric of each job that is done, by its number.
        indifference: it is over when those that are left differ by less.
        max_jobs: it is over when another round would make more jobs.
    """
    sign = 1 if is_higher_better(jobs[0].config.checkpoint.monitor) else -1
    groups = configurations(jobs)
    members = {
        key: [sign * scores[job.number] for job in group]
        for key, group in groups.items()
        if all(job.number in scores for job in group)
    }
    left, number = list(members), 1
    first = min((len(values) for values in members.values()), default=0)
    used = dict.fromkeys(left, first)
    while True:
        keys = list(members)
        # Of those that are out, the variances count.
        everyone = Comparison.of([members[key][: used[key]] for key in keys])
        inside = everyone.among([keys.index(key) for key in left])
        worse = {left[place] for place in inside.worse(LEVEL * 6 / (math.pi * number) ** 2)}
        ranked = [left[place] for place in np.argsort(-inside.means, kind="stable")]
        left = [key for key in ranked if key not in worse]
        out = [key for key in groups if key not in left]
        if len(left) <= 1:
            return Standing(left, out, number, True, "one configuration is left")
        inside = everyone.among([keys.index(key) for key in left])
        if max(map(inside.most_gained, range(len(left)))) < indifference:
            why = f"those that are left differ by less than hydra.sweeper.indifference={indifference:g}"
            return Standing(left, out, number, True, why)
        if any(len(members[key]) == used[key] for key in left):
            # The next round has not been run.
            if len(jobs) + len(left) > max_jobs:
                why = f"another round would make more jobs than hydra.sweeper.max_jobs={max_jobs}"
                return Standing(left, out, number, True, why)
            return Standing(left, out, number, False, "")
        used |= {key: used[key] + 1 for key in left}
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
