"""Intervals, tests and corrections that studies use."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

# Intervals hold at 1 - ALPHA, and a p value below it is taken as evidence.
ALPHA = 0.05


def share(successes: int, count: int, comparisons: int = 1) -> str:
    """Return a share with its interval, of Clopper and Pearson, at 95 % for all comparisons together."""
    interval = stats.binomtest(successes, count).proportion_ci(1 - ALPHA / comparisons)
    return f"{successes} of {count} ({interval.low:.2f} to {interval.high:.2f})"


def paired(one: "pd.Series[float]", other: "pd.Series[float]", comparisons: int = 1) -> tuple[float, float, float]:
    """Return the mean difference of two series by seed, and its interval at 95 % for all comparisons together."""
    assert one.index.is_unique
    assert one.index.equals(other.index)
    differences = one - other
    mean, count = float(differences.mean()), len(differences)
    half = float(stats.t.ppf(1 - ALPHA / comparisons / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def rank_test(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    """Return the p value of Mann and Whitney's test.

    It is not the signed-rank test of pairs, whose p is 0.002 at least with ten seeds and so never survives a
    correction for 35 comparisons. Seeds of different configurations hardly correlate (the study of seeds).
    """
    return float(stats.mannwhitneyu(one, other).pvalue)


def exact_test(one: int, other: int, count: int) -> float:
    """Return the p value of Fisher's test for successes of two configurations with so many runs each."""
    return float(stats.fisher_exact([[one, count - one], [other, count - other]]).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Return the order statistics between which the median is, with a probability of 95 % at least.

    Args:
        values: six or more; infinite ones are larger than all others.
    """
    ordered = sorted(values)
    place = int(stats.binom.ppf(ALPHA / 2, len(ordered), 0.5))
    assert place > 0, "fewer than six values have no such interval"
    return ordered[place - 1], ordered[len(ordered) - place]


def jackknife(
    scores: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float]
) -> tuple[float, float, float]:
    """Return a statistic of seeds, and its interval at 95 %, from what it is without each of them.

    Resampling seeds with replacement would draw some of them twice, which changes a statistic that compares a seed
    with others.

    Args:
        scores: (configurations, seeds, ...).
        statistic: a function of such scores.
    """
    count = scores.shape[1]
    without = [statistic(np.delete(scores, seed, axis=1)) for seed in range(count)]
    half = float(stats.t.ppf(1 - ALPHA / 2, count - 1) * math.sqrt((count - 1) * np.var(without)))
    found = statistic(scores)
    return found, found - half, found + half
