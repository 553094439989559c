"""Measure what seeds of the weights and of the data do to the default sweep; write results.md, runs.csv and a figure.

python -m experiments.seeds.measure
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.seeds.picture import draw
from experiments.statistics import jackknife, paired
from experiments.study import Configuration, cost, runs_of, store, sweep
from experiments.study_report import write
from numpy.typing import NDArray
from scipy import stats

from grulab.report.sections import Section

HERE = Path(__file__).parent
SIZE, LAYERS, BOTH, BUDGET = "model.hidden_size", "model.num_layers", "model.bidirectional", "model.parameter_budget"
ACCURACY = "test/accuracy"
# Of the weights on the same data; and of the data, each with some of the weights.
SEEDS, DATA_SEEDS, WEIGHTS_EACH = 40, 10, 4
COMMON = ["data=sinusoids", "data.test_size=10000", "trainer.accelerator=cpu"]
ARCHITECTURES: list[Configuration] = [
    {SIZE: size, LAYERS: layers, BOTH: both}
    for size, layers, both in itertools.product((8, 16, 32), (1, 2), (False, True))
]
# Which one direction and two fill to 2 %.
BUDGETS = (393, 1278, 3657)
GAPS = (0, 0.005, 0.01, 0.02, np.inf)

Scores = NDArray[np.float64]


def main() -> None:
    weights = sweep("seeds/weights", COMMON, _crossed(ARCHITECTURES, [(seed, 0) for seed in range(SEEDS)]))
    nested = [(WEIGHTS_EACH * data + number, data) for data in range(DATA_SEEDS) for number in range(WEIGHTS_EACH)]
    data = sweep("seeds/data", COMMON, _crossed(ARCHITECTURES, nested))
    own = [(seed, seed) for seed in range(SEEDS)]
    units = [row for row in ARCHITECTURES if row[LAYERS] == 1]
    equal: list[Configuration] = [{BUDGET: size, LAYERS: 1, BOTH: both} for size in BUDGETS for both in (False, True)]
    at_units = sweep("seeds/units", COMMON, _crossed(units, own))
    at_budget = sweep("seeds/parameters", COMMON, _crossed(equal, own))
    parts = {"weights": weights, "data": data, "equal units": at_units, "equal parameters": at_budget}
    store(HERE / "runs.csv", pd.concat([part.assign(part=name) for name, part in parts.items()], ignore_index=True))
    by_weights = _matrix(weights)
    draw(by_weights, HERE / "figures" / "seeds.png")
    sections = [
        _reversals(by_weights),
        _needed(by_weights),
        _variances(_matrix(data).reshape(len(ARCHITECTURES), DATA_SEEDS, WEIGHTS_EACH)),
        _units(at_units),
        _directions(at_units, at_budget),
        Section("Cost", cost(*parts.values())),
    ]
    write("What seeds do", sections, HERE / "results.md")


def _crossed(configurations: Sequence[Configuration], seeds: Sequence[tuple[int, int]]) -> list[Configuration]:
    return [
        {**configuration, "seed": seed, "data.seed": data_seed}
        for configuration in configurations
        for seed, data_seed in seeds
    ]


def _matrix(runs: pd.DataFrame) -> Scores:
    """Return the test accuracies: (architectures, seeds)."""
    return np.array([group.sort_values("seed")[ACCURACY] for _, group in runs.groupby([SIZE, LAYERS, BOTH])])


def _interval(scores: Scores, statistic: Callable[[Scores], float], form: str) -> str:
    found, low, high = jackknife(scores, statistic)
    return f"{found:{form}} ({low:{form}} to {high:{form}})"


def _reversals(scores: Scores) -> Section:
    """Count how often the architecture that wins with one seed each loses by the mean of the other seeds."""
    lead, _ = _wins(scores)
    rows = [["all", len(lead), _interval(scores, reversed_share(0, np.inf), ".1%")]]
    for low, high in itertools.pairwise(GAPS):
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}"
        count = int(((abs(lead) >= low) & (abs(lead) < high)).sum())
        rows.append([name, count, _interval(scores, reversed_share(low, high), ".1%")])
    text = (
        "Of each pair of architectures the one that is ahead with one seed, against the mean of the other "
        f"{SEEDS - 1}; the rows are by its lead with that seed. Intervals (95 %) by leaving out each seed "
        "(jackknife)."
    )
    return Section("Wins by one seed", text, pd.DataFrame(rows, columns=["lead", "wins by one seed", "reversed"]))


def reversed_share(low: float, high: float) -> Callable[[Scores], float]:
    """Return a function that gives the share of wins by so much that the other seeds reverse."""

    def found(scores: Scores) -> float:
        lead, rest = _wins(scores)
        chosen = (abs(lead) >= low) & (abs(lead) < high)
        return float((lead * rest < 0)[chosen].mean())

    return found


def _wins(scores: Scores) -> tuple[Scores, Scores]:
    """Return the lead with each seed, and with the mean of all others, of every pair of architectures."""
    others = (scores.sum(axis=1, keepdims=True) - scores) / (scores.shape[1] - 1)
    one, other = np.triu_indices(len(scores), k=1)
    gaps, rest = (scores[one] - scores[other]).flatten(), (others[one] - others[other]).flatten()
    return gaps[gaps != 0], rest[gaps != 0]


def _needed(scores: Scores) -> Section:
    pairs = list(itertools.combinations(scores, 2))
    spreads = np.array([np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2) for one, other in pairs])
    rows = []
    for difference in (0.005, 0.01, 0.02, 0.03):
        seeds = [seeds_for(difference / spread) for spread in spreads]
        rows.append([difference, *(f"{np.quantile(seeds, share):.0f}" for share in (0.5, 0.9))])
    correlation = _interval(scores, _mean_correlation, ".2f")
    text = (
        "Seeds for each of two architectures that show a difference with a power of 0.8 at 5 % (t test). The "
        f"standard deviation of one seed's difference is {np.sqrt(2) * np.median(spreads):.4f} in the median pair. "
        f"The same seeds of the weights correlate at {correlation} between architectures, the mean of {len(pairs)} "
        "pairs."
    )
    table = pd.DataFrame(rows, columns=["difference", "median pair", "90 % of pairs"])
    return Section("Seeds that it takes", text, table)


def seeds_for(effect: float) -> int:
    """Return the seeds of each of two groups that show an effect, in standard deviations, with a power of 0.8."""
    for count in itertools.count(2):
        freedom = 2 * count - 2
        limit = stats.t.ppf(0.975, freedom)
        if 1 - stats.nct.cdf(limit, freedom, effect * np.sqrt(count / 2)) >= 0.8:
            return count
    raise AssertionError


def _mean_correlation(scores: Scores) -> float:
    one, other = np.triu_indices(len(scores), k=1)
    return float(np.asarray(np.corrcoef(scores))[one, other].mean())


def _variances(scores: Scores) -> Section:
    """Tell what data seeds add to the spread, and how much of it pairing by data takes away.

    Args:
        scores: (architectures, data seeds, weight seeds).
    """

    def weights(part: Scores) -> float:
        return float(np.sqrt(part.var(axis=2, ddof=1).mean()))

    def left(part: Scores) -> float:
        """Return the share of the variance of a difference of means that pairing by data leaves."""
        means = part.mean(axis=2)
        one, other = np.triu_indices(len(means), k=1)
        alone = means[one].var(axis=1, ddof=1) + means[other].var(axis=1, ddof=1)
        return float((means[one] - means[other]).var(axis=1, ddof=1).sum() / alone.sum())

    # What the data do to all architectures alike: the spread of data seeds' means, less the weights' part of it.
    total = scores.mean(axis=(0, 2)).var(ddof=1)
    of_weights = weights(scores) ** 2 / (scores.shape[0] * scores.shape[2])
    freedom = DATA_SEEDS - 1
    bounds = (freedom * total / stats.chi2.ppf(share, freedom) for share in (0.975, 0.025))
    low, high = (math.sqrt(max(0.0, bound - of_weights)) for bound in bounds)
    shared = math.sqrt(max(0.0, total - of_weights))
    accuracies = scores.mean(axis=(1, 2))
    of_test = {size: np.sqrt(accuracies * (1 - accuracies) / size).mean() for size in (1000, 10_000)}
    text = (
        f"{DATA_SEEDS} data seeds with {WEIGHTS_EACH} seeds of the weights each, 10,000 test sequences. Standard "
        f"deviation of the test accuracy over seeds of the weights: {_interval(scores, weights, '.4f')}. What a data "
        f"seed adds to all architectures alike, which no number of weight seeds averages out: {shared:.4f} "
        f"({low:.4f} to {high:.4f}, of the variance's chi-squared distribution). In the mean of the architectures, "
        f"the standard error of an accuracy from its test sequences alone (binomial) is {of_test[10_000]:.4f} with "
        f"10,000 and {of_test[1000]:.4f} with 1,000. Pairing by data leaves {_interval(scores, left, '.0%')} of the "
        "variance of a difference between architectures (by leaving out each data seed)."
    )
    return Section("The data's part", text)


def _difference(one: "pd.Series[float]", other: "pd.Series[float]", comparisons: int) -> str:
    mean, low, high = paired(one, other, comparisons)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _units(runs: pd.DataFrame) -> Section:
    one_way = runs_of(runs, {BOTH: False})
    scores = one_way.pivot(index="seed", columns=SIZE, values=ACCURACY)
    parameters = one_way.groupby(SIZE)["parameters"].first()
    pairs = [(16, 8), (32, 16), (32, 8)]
    rows = []
    for large, small in pairs:
        rows.append(
            {
                "units": f"{large} against {small}",
                "parameters": f"{parameters[large]:,} and {parameters[small]:,}",
                "difference": _difference(scores[large], scores[small], len(pairs)),
            }
        )
    text = (
        f"One layer and one direction, {SEEDS} seeds, paired by their data; all {len(pairs)} intervals hold together "
        "at 95 %."
    )
    return Section("More units", text, pd.DataFrame(rows))


def _directions(at_units: pd.DataFrame, at_budget: pd.DataFrame) -> Section:
    rows = []
    comparisons = at_units[SIZE].nunique() + at_budget[BUDGET].nunique()
    for key, part in ((SIZE, at_units), (BUDGET, at_budget)):
        for value, group in part.groupby(key):
            scores = group.pivot(index="seed", columns=BOTH, values=ACCURACY)
            parameters = group.groupby(BOTH)["parameters"].first()
            rows.append(
                {
                    "at equal": f"{value} units" if key == SIZE else f"parameters, at most {value:,}",
                    "parameters, one and two": f"{parameters[False]:,} and {parameters[True]:,}",
                    "two directions against one": _difference(scores[True], scores[False], comparisons),
                }
            )
    text = f"One layer, {SEEDS} seeds, paired by their data; all {comparisons} intervals hold together at 95 %."
    return Section("Two directions, or twice the units?", text, pd.DataFrame(rows))


if __name__ == "__main__":
    main()
