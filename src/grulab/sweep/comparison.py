"""Which configuration is better, and how surely: the statistics of races and reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.05
_POWER = 0.8
_MOST_SEEDS = 1000
# So many pairs that agree in the sign of their difference have a probability under 5 % by chance.
_SEEDS_OF_A_SIGN_TEST = 6
_FEWEST_SEEDS = 2
_DRAWS = 10_000
# Others are first too rarely to be counted.
_LEADING = 50


def level_of_look(look: int) -> float:
    """Return the level of a look at results that are looked at again when more have come, from 1.

    The shares of 5 %, 6 / (pi look)^2, sum to 1 however many looks there are.
    """
    return LEVEL * 6 / (math.pi * look) ** 2


@dataclass(frozen=True)
class Comparison:
    """Scores of several configurations, each over seeds of its own; higher is better.

    The variance of a configuration is its own or the pooled one of all, whichever is larger, with the degrees of
    freedom of all: with three seeds a variance of its own is hardly known, and one that is large is not hidden.
    ``experiments/simulation`` tells how often its claims are false. Seeds of the weights are independent between
    configurations: measured, they correlate at 0.03, so nothing is gained by pairing them. Seeds of the data are not.

    Attributes:
        means: (configurations,) means over seeds.
        counts: (configurations,) numbers of seeds, at least 1.
        variances: (configurations,) of a single seed.
        freedom: degrees of freedom of the variances; 0 if no configuration has two seeds.
    """

    means: NDArray[np.float64]
    counts: NDArray[np.int64]
    variances: NDArray[np.float64]
    freedom: int

    @classmethod
    def of(cls, scores: Sequence[Sequence[float]], is_paired: bool = False) -> "Comparison":
        """Return the comparison of configurations, each with the scores of its seeds.

        Args:
            scores: of each configuration.
            is_paired: whether the first seed of each configuration has the same data, and so on. What data are worth
                to all configurations is no variance of their differences then (a randomized block design; of two
                configurations, the paired t test).
        """
        if is_paired and len(scores) > 1:
            return cls._of_pairs(np.array(scores))
        counts = np.array([len(part) for part in scores])
        means = np.array([np.mean(part) for part in scores])
        squares = np.array([np.square(np.asarray(part) - np.mean(part)).sum() for part in scores])
        freedom = int((counts - 1).sum())
        pooled = squares.sum() / max(1, freedom)
        own = squares / np.maximum(1, counts - 1)
        return cls(means, counts, np.maximum(own, pooled), freedom)

    @classmethod
    def _of_pairs(cls, scores: NDArray[np.float64]) -> "Comparison":
        """Return the comparison of configurations whose seeds have the same data.

        Args:
            scores: (configurations, seeds).
        """
        configurations, seeds = scores.shape
        means = scores.mean(axis=1)
        residuals = scores - means[:, None] - scores.mean(axis=0) + scores.mean()
        freedom = (configurations - 1) * (seeds - 1)
        pooled = np.square(residuals).sum() / max(1, freedom)
        own = np.square(residuals).sum(axis=1) / max(1, seeds - 1)
        if configurations > 2:
            # A residual has a share of every other configuration in it, through the mean of its seed.
            own = (own - own.mean() / (configurations - 1)) * configurations / (configurations - 2)
        return cls(means, np.full(configurations, seeds), np.maximum(own, pooled), freedom)

    @property
    def best(self) -> int:
        """The configuration with the highest mean."""
        return int(np.argmax(self.means))

    def among(self, places: Sequence[int]) -> "Comparison":
        """Return the comparison of some of the configurations, with the variances that all have told."""
        chosen = list(places)
        return Comparison(self.means[chosen], self.counts[chosen], self.variances[chosen], self.freedom)

    def error(self, one: int, other: int) -> float:
        """Return the standard error of the difference of two means."""
        variance = self.variances[one] / self.counts[one] + self.variances[other] / self.counts[other]
        return float(np.sqrt(variance))

    def quantile(self, level: float) -> float:
        """Return the value that Student's t exceeds with a probability of ``level``; infinite if nothing is known."""
        return float(special.stdtrit(self.freedom, 1 - level)) if self.freedom else float("inf")

    def half_width(self, one: int, other: int) -> float:
        """Return half the 95 % interval of the difference of two means."""
        return self.quantile(LEVEL / 2) * self.error(one, other) if self.freedom else float("inf")

    def is_real(self, one: int, other: int, level: float = LEVEL) -> bool:
        """Return whether two configurations differ (two-sided).

        The one with the highest mean may be compared with each other one in this way although it was picked for it:
        the selection is paid for by the second side (Gutmann and Maymin 1987, https://doi.org/10.1214/aos/1176350294).
        """
        return self._differ(one, other, self.quantile(level / 2))

    def worse(self, level: float = LEVEL) -> list[int]:
        """Return the configurations that are worse than the best (one-sided, corrected for all comparisons).

        Args:
            level: the probability that the truly best one is among them is smaller.
        """
        best, others = self.best, len(self.means) - 1
        if not self.freedom or not others:
            return []
        factor = self.quantile(level / others)
        return [place for place in range(len(self.means)) if place != best and self._differ(best, place, factor)]

    def _differ(self, one: int, other: int, factor: float) -> bool:
        """Return whether two means are so many standard errors apart."""
        difference, error = abs(float(self.means[one] - self.means[other])), self.error(one, other)
        if min(self.counts[one], self.counts[other]) < _FEWEST_SEEDS:
            return False
        if error == 0:
            # Metrics of few sequences are coarse: two seeds often have the same.
            return difference > 0 and bool(min(self.counts[one], self.counts[other]) >= _SEEDS_OF_A_SIGN_TEST)
        return difference > factor * error

    def largest_difference(self, level: float) -> float:
        """Return a bound of the difference of any two configurations, over all pairs of them."""
        count = len(self.means)
        factor = self.quantile(level / max(1, count * (count - 1)))
        return max(
            float(self.means[one] - self.means[other]) + factor * self.error(one, other)
            for one in range(count)
            for other in range(count)
            if one != other
        )

    def most_gained(self, place: int) -> float:
        """Return how much better than this configuration the best can be at most (95 %, over all comparisons)."""
        best, others = self.best, max(1, len(self.means) - 1)
        if place == best:
            return 0.0
        margin = self.quantile(LEVEL / others) * self.error(best, place)
        return float(self.means[best] - self.means[place] + margin)

    def shares_of_first(self) -> NDArray[np.float64]:
        """Return how often each configuration would have the highest mean with other seeds: (configurations,).

        The means are drawn from Student's t distributions around the observed ones: resampling two or three seeds
        would make them vary less than they do.
        """
        shares = np.zeros(len(self.means))
        leading = np.argsort(-self.means, kind="stable")[:_LEADING]
        if not self.freedom:
            shares[leading[0]] = 1
            return shares
        generator = np.random.default_rng(0)
        errors = np.sqrt(self.variances / self.counts)[leading, None]
        means = self.means[leading, None] + errors * generator.standard_t(self.freedom, (len(leading), _DRAWS))
        is_first = means == means.max(axis=0)
        # Equal ones share a first place.
        shares[leading] = (is_first / is_first.sum(axis=0)).mean(axis=1)
        return shares

    def seeds_to_settle(self, one: int, other: int) -> int | None:
        """Return the number of seeds for each of two configurations that would probably show their difference.

        With the difference and the variances as observed, it is found real with a probability of 0.8. None if that
        takes over 1000 seeds, or nothing is known of the variances.
        """
        difference = abs(float(self.means[one] - self.means[other]))
        if not self.freedom or difference == 0:
            return None
        sum_of_variances = float(self.variances[one] + self.variances[other])
        # The quantiles of so many seeds are those of the normal distribution.
        quantiles = float(special.ndtri(1 - LEVEL / 2) + special.ndtri(_POWER))
        seeds = int(np.ceil(sum_of_variances * (quantiles / difference) ** 2))
        return max(seeds, int(self.counts.max()) + 1, 3) if seeds <= _MOST_SEEDS else None
