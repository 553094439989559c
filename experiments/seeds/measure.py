"""Measure what seeds of the weights and of the data do to the default sweep; write results.md, runs.csv and a figure.

python -m experiments.seeds.measure
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.seeds.picture import draw
from experiments.tuned import Configuration, paired, store, sweep
from numpy.typing import NDArray
from scipy import stats

from grulab.report.sections import Section, to_markdown
from grulab.system.cores import available_cores

HERE = Path(__file__).parent
SIZE, LAYERS, BOTH, BUDGET = "model.hidden_size", "model.num_layers", "model.bidirectional", "model.parameter_budget"
SEEDS = 40
ACCURACY = "test/accuracy"
COMMON = ["data=sinusoids", "trainer.accelerator=cpu"]
ARCHITECTURES: list[Configuration] = [
    {SIZE: size, LAYERS: layers, BOTH: both}
    for size, layers, both in itertools.product((8, 16, 32), (1, 2), (False, True))
]
GAPS = (0, 0.005, 0.01, 0.02, np.inf)
_POWER = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)


def main() -> None:
    began = time.perf_counter()
    weights = sweep("seeds/weights", COMMON, _with_seeds(ARCHITECTURES, has_own_data=False))
    data = sweep("seeds/data", COMMON, _with_seeds(ARCHITECTURES, has_own_data=True))
    budgets = sorted(weights[weights[LAYERS] == 1][~weights[BOTH].astype(bool)]["parameters"].unique())
    equal: list[Configuration] = [
        {BUDGET: int(budget), LAYERS: 1, BOTH: both} for budget in budgets for both in (False, True)
    ]
    at_budget = sweep("seeds/budget", COMMON, _with_seeds(equal, has_own_data=True))
    parts = {"weights": weights, "data": data, "equal parameters": at_budget}
    runs = pd.concat([part.assign(part=name) for name, part in parts.items()], ignore_index=True)
    store(HERE / "runs.csv", runs)
    by_weights, by_data = _matrix(weights), _matrix(data)
    draw(by_weights, HERE / "figures" / "seeds.png")
    minutes = (time.perf_counter() - began) / 60
    sections = [
        _reversals(by_weights),
        _needed(by_weights),
        _variances(by_weights, by_data),
        _directions(data, at_budget),
        Section("Cost", f"{len(runs):,} runs, {minutes:.0f} minutes on {available_cores()} cores."),
    ]
    report = to_markdown("What seeds do", sections)
    (HERE / "results.md").write_text(report, encoding="utf-8")
    print(report)


def _with_seeds(configurations: Sequence[Configuration], has_own_data: bool) -> list[Configuration]:
    return [
        {**configuration, "seed": seed, "data.seed": seed if has_own_data else 0}
        for configuration in configurations
        for seed in range(SEEDS)
    ]


def _matrix(runs: pd.DataFrame) -> NDArray[np.float64]:
    """Return the test accuracies: (architectures, seeds)."""
    return np.array([group.sort_values("seed")[ACCURACY] for _, group in runs.groupby([SIZE, LAYERS, BOTH])])


def _reversals(scores: NDArray[np.float64]) -> Section:
    """Count how often the architecture that wins with one seed each loses by the mean of the other seeds."""
    found = []
    for one, other in itertools.combinations(scores, 2):
        for seed in range(len(one)):
            gap = one[seed] - other[seed]
            rest = np.delete(one, seed).mean() - np.delete(other, seed).mean()
            if gap != 0:
                found.append((abs(gap), gap * rest < 0, abs(rest)))
    table = pd.DataFrame(found, columns=["gap", "reversed", "rest"])
    rows = [["all", len(table), f"{table['reversed'].mean():.1%}"]]
    for low, high in itertools.pairwise(GAPS):
        part = table[(table["rest"] >= low) & (table["rest"] < high)]
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}"
        rows.append([name, len(part), f"{part['reversed'].mean():.1%}"])
    text = (
        f"Of each pair of architectures the one that is ahead with one seed, against the mean of the "
        f"other {SEEDS - 1}; the rows are by that mean's difference."
    )
    return Section("Wins by one seed", text, pd.DataFrame(rows, columns=["true difference", "wins", "reversed"]))


def _needed(scores: NDArray[np.float64]) -> Section:
    pairs = list(itertools.combinations(scores, 2))
    spreads = np.array([np.sqrt(one.var(ddof=1) + other.var(ddof=1)) for one, other in pairs])
    rows = []
    for difference in (0.005, 0.01, 0.02, 0.03):
        seeds = np.ceil((_POWER * spreads / difference) ** 2)
        rows.append([difference, *(f"{np.quantile(seeds, share):.0f}" for share in (0.5, 0.9))])
    correlations = [float(np.corrcoef(one, other)[0, 1]) for one, other in pairs]
    text = (
        "Seeds for each of two architectures that show a difference with a power of 0.8 at 5 %. The standard "
        f"deviation of a difference is {np.median(spreads):.4f} in the median pair. Seeds of the weights correlate "
        f"at {np.mean(correlations):.2f} between architectures (mean of {len(pairs)} pairs), so pairing by them "
        "gains nothing."
    )
    return Section(
        "Seeds that it takes", text, pd.DataFrame(rows, columns=["difference", "median pair", "90 % of pairs"])
    )


def _variances(by_weights: NDArray[np.float64], by_data: NDArray[np.float64]) -> Section:
    """Tell what data seeds add to the spread, how much of that is common to all, and what pairing gains."""
    weights, both = by_weights.var(axis=1, ddof=1), by_data.var(axis=1, ddof=1)
    correlations = [float(np.corrcoef(one, other)[0, 1]) for one, other in itertools.combinations(by_data, 2)]
    pairs = list(itertools.combinations(by_data, 2))
    alone = np.mean([one.var(ddof=1) + other.var(ddof=1) for one, other in pairs])
    together = np.mean([(one - other).var(ddof=1) for one, other in pairs])
    added = max(0.0, float(both.mean() - weights.mean()))
    text = (
        f"Standard deviation of the test accuracy over seeds of the weights: {np.sqrt(weights.mean()):.4f}; of "
        f"weights and data: {np.sqrt(both.mean()):.4f}. The data add {np.sqrt(added):.4f}, which no number of weight "
        f"seeds averages out. Over data seeds architectures correlate at {np.mean(correlations):.2f}; pairing by "
        f"data leaves {together / alone:.0%} of the variance of a difference."
    )
    return Section("The data's part", text)


def _directions(data: pd.DataFrame, at_budget: pd.DataFrame) -> Section:
    rows = []
    units = data[data[LAYERS] == 1]
    comparisons = 2 * units[SIZE].nunique()
    for key, part in ((SIZE, units), (BUDGET, at_budget)):
        for value, group in part.groupby(key):
            scores = group.pivot(index="seed", columns=BOTH, values=ACCURACY)
            parameters = group.groupby(BOTH)["parameters"].first()
            mean, low, high = paired(scores[True], scores[False], comparisons)
            rows.append(
                {
                    "at equal": f"{value} units" if key == SIZE else f"parameters, at most {value:,}",
                    "parameters, one and two": f"{parameters[False]:,} and {parameters[True]:,}",
                    "two directions against one": f"{mean:+.4f} ({low:+.4f} to {high:+.4f})",
                }
            )
    text = f"One layer, {SEEDS} seeds, paired by their data; all {comparisons} intervals hold together at 95 %."
    return Section("Two directions, or twice the units?", text, pd.DataFrame(rows))


if __name__ == "__main__":
    main()
