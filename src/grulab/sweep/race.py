"""A race: seeds come in rounds, and configurations that are worse than the best drop out.

Peers: irace (López-Ibáñez et al. 2016, https://doi.org/10.1016/j.orp.2016.09.002); ``experiments/simulation`` has the
error rates of this one beside those of Optuna's WilcoxonPruner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from grulab.config.overrides import key_of, split_override
from grulab.config.schema import is_higher_better
from grulab.config_error import ConfigError
from grulab.sweep.comparison import Comparison, level_of_look
from grulab.sweep.job import Job
from grulab.sweep.rungs import configurations

_FIRST_SEEDS = "seed=0,1,2"
# In seeds of each configuration; and the ratio of the numbers of seeds at two looks.
_FIRST_LOOK, _RATIO = 3, 1.4


@dataclass(frozen=True)
class Outcome:
    """Where a race stands.

    Attributes:
        left: positions of the configurations that are still in it, the best first.
        look: number of the comparison that was the last, from 1; 0 if there was none.
        seeds: how many seeds each of those that are left needs for the next one.
        why: it is over, in words; empty if it goes on.
    """

    left: list[int]
    look: int
    seeds: int
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


def outcome(scores: Sequence[Sequence[float]], indifference: float) -> Outcome:
    """Return where a race stands; higher scores are better.

    It is told look by look, so that the same scores give the same answer. At each look, after 3, 4, 6, 8, 11, 15 ...
    seeds, the configurations that are worse than the best drop out. The level of 5 %, two-sided, is divided over the
    comparisons of a look, and over the looks. So is the one at which those that are left differ by too little.

    Args:
        scores: of each configuration, in the order of its seeds; of one that dropped out, those that it has.
        indifference: the race is over when those that are left differ by less.
    """
    left, seeds = list(range(len(scores))), _FIRST_LOOK
    if any(len(part) < seeds for part in scores):
        return Outcome(left, 0, seeds, "")
    used = [seeds] * len(scores)
    for look in count(1):
        # Of those that are out, the variances count.
        everyone = Comparison.of([part[:number] for part, number in zip(scores, used, strict=True)])
        inside = everyone.among(left)
        worse = {left[place] for place in inside.worse(level_of_look(look) / 2)}
        ranked = [left[place] for place in np.argsort(-inside.means, kind="stable")]
        left = [place for place in ranked if place not in worse]
        following = max(seeds + 1, round(seeds * _RATIO))
        if len(left) == 1:
            return Outcome(left, look, following, "one configuration is left")
        inside = everyone.among(left)
        if inside.largest_difference(level_of_look(look)) < indifference:
            return Outcome(left, look, following, f"those that are left differ by less than {indifference:g}")
        if any(len(scores[place]) < following for place in left):
            return Outcome(left, look, following, "")
        seeds = following
        used = [seeds if place in left else number for place, number in enumerate(used)]
    raise AssertionError


def standing(
    jobs: Sequence[Job], scores: Mapping[int, float], indifference: float
) -> tuple[list[list[Job]], list[list[Job]], Outcome]:
    """Return the jobs of the configurations that are left in a race, of those that are out, and the outcome.

    Args:
        jobs: of the race; a configuration of which a job has no score is out.
        scores: the monitored metric of each job that is done, by its number.
        indifference: as for :func:`outcome`.
    """
    sign = 1 if is_higher_better(jobs[0].config.checkpoint.monitor) else -1
    groups = list(configurations(jobs, is_of_rungs=False).values())
    whole = [group for group in groups if all(job.number in scores for job in group)]
    if not whole:
        return [], groups, Outcome([], 0, 0, "no configuration has results of all its seeds")
    found = outcome([[sign * scores[job.number] for job in group] for group in whole], indifference)
    left = [whole[place] for place in found.left]
    return left, [group for group in groups if group not in left], found


def next_round(jobs: Sequence[Job], left: Sequence[Sequence[Job]], seeds: int) -> list[Job]:
    """Return the jobs of a race with so many seeds for each configuration that is left; new ones have no folder."""
    everything = list(jobs)
    for group in left:
        overrides = [line for line in group[0].overrides if key_of(line) != "seed"]
        first = max(job.config.seed for job in group) + 1
        for seed in range(first, first + seeds - len(group)):
            config = replace(group[0].config, seed=seed)
            everything.append(Job(len(everything), "", [*overrides, f"seed={seed}"], config))
    return everything
