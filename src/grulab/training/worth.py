"""Is a GRU worth it here? Its comparison with simple classifiers, paired over the test sequences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grulab.tasks.baselines import IN_WORDS

# Of a normal distribution, for an interval of 95 %.
_QUANTILE = 1.959964


def worth_in_words(jobs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return a sentence that compares a GRU with the best of its baselines on the test sequences, and how surely.

    Args:
        jobs: for each job of one configuration, one a seed, its baselines as summary.json has them; see
            :func:`grulab.training.test_results.compare`.
    """
    by_name = {str(baseline["name"]): [_of(job, baseline["name"]) for job in jobs] for baseline in jobs[0]}
    name = max(by_name, key=lambda name: float(np.mean([result["test"] for result in by_name[name]])))
    results = by_name[name]
    other = float(np.mean([result["test"] for result in results]))
    mean, half = difference(results)
    # The interval's centre is drawn towards 0 for few sequences; the accuracies are as they were measured.
    gru = other + float(np.mean([(r["only_gru"] - r["only_baseline"]) / r["sequences"] for r in results]))
    seeds = f", mean of {len(results)} seeds" if len(results) > 1 else ""
    words = IN_WORDS.get(name, name)
    compared = (
        f"The GRU is right on {gru:.3f} of the test sequences{seeds}, {words} on {other:.3f}: {gru - other:+.3f} "
        f"(95 % interval {mean - half:+.3f} to {mean + half:+.3f}, paired over {results[0]['sequences']:,} sequences)"
    )
    if mean - half > 0:
        return f"{compared}. A GRU is worth it here."
    if mean + half < 0:
        return f"{compared}. A GRU is not worth it here: the simple classifier is better."
    return f"{compared}. That may be chance: nothing shows that a GRU is worth it here."


def difference(results: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the mean difference in accuracy, GRU minus baseline, and half its 95 % interval.

    The sequences' part is the interval of Agresti and Min (2005, https://doi.org/10.1002/sim.2062) for paired
    proportions, half a sequence added to each kind of pair, as if all seeds erred on the same sequences; the seeds'
    part is the standard error of their mean. So it is wide rather than narrow.

    Args:
        results: for each seed the numbers of sequences that only one of the two classifies correctly, and of all.
    """
    differences, variances = [], []
    for result in results:
        gru, other = result["only_gru"] + 0.5, result["only_baseline"] + 0.5
        count = result["sequences"] + 2
        differences.append((gru - other) / count)
        variances.append((gru + other - (gru - other) ** 2 / count) / count**2)
    of_seeds = float(np.var(differences, ddof=1)) / len(results) if len(results) > 1 else 0.0
    return float(np.mean(differences)), _QUANTILE * math.sqrt(float(np.mean(variances)) + of_seeds)


def _of(job: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(baseline for baseline in job if baseline["name"] == name)
