"""Tables and figures of studies that compare configurations over tuned runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.tuned import LR, SEED, holm, paired, rank_test, share
from matplotlib.figure import Figure

ACCURACY = "test/accuracy"
COMPARED = (
    "Differences over seeds, which have the same data; all {} intervals hold together at 95 %, and p is corrected "
    "for their number. Configurations differ where both say so."
)


def results(runs: pd.DataFrame, keys: Mapping[str, str], solved: float, comparisons: int) -> pd.DataFrame:
    """Return a row for each configuration: its keys, parameters, rate, accuracies and how many seeds solved it.

    Args:
        runs: see :meth:`experiments.tuned.Study.run`.
        keys: the columns that tell configurations apart, and their headers.
        solved: the test accuracy from which a run has solved its task.
        comparisons: number of intervals that hold together at 95 %.
    """
    rows = []
    for name, group in runs.groupby(list(keys), sort=False, dropna=False):
        values = group[ACCURACY]
        is_solved = int((values >= solved).sum())
        rows.append(
            {
                **dict(zip(keys.values(), name, strict=True)),
                "parameters": f"{int(group['parameters'].iloc[0]):,}",
                "rate": f"{group[LR].iloc[0]:g}" + " (an edge)" * bool(group["edge"].iloc[0]),
                "median (lowest to highest)": f"{values.median():.3f} ({values.min():.3f} to {values.max():.3f})",
                f"at {solved:g} or more": share(is_solved, len(values), comparisons),
            }
        )
    return pd.DataFrame(rows)


def compare(
    runs: pd.DataFrame, pairs: Sequence[tuple[str, Mapping[str, object], Mapping[str, object]]]
) -> pd.DataFrame:
    """Compare configurations two by two.

    Args:
        runs: as for :func:`results`.
        pairs: a name, and the keys of the one and the other.

    Returns:
        A row for each pair: the mean difference of the test accuracy over seeds, which have the same data, with an
        interval that holds at 95 % for all pairs together; the p value of a test of ranks, corrected for all pairs;
        and whether both say that they differ.
    """
    scores = [(name, _scores(runs, one), _scores(runs, other)) for name, one, other in pairs]
    values = holm([rank_test(one, other) for _, one, other in scores])
    rows = []
    for (name, one, other), value in zip(scores, values, strict=True):
        mean, low, high = paired(one, other, len(scores))
        differs = (low > 0 or high < 0) and value < 0.05
        rows.append(
            {
                "comparison": name,
                "difference": f"{mean:+.3f} ({low:+.3f} to {high:+.3f})",
                "p of ranks": f"{value:.4f}",
                "differ": ("better" if mean > 0 else "worse") if differs else "",
            }
        )
    return pd.DataFrame(rows)


def _scores(runs: pd.DataFrame, keys: Mapping[str, object]) -> "pd.Series[float]":
    for key, value in keys.items():
        runs = runs[runs[key] == value]
    assert runs[SEED].is_unique, keys
    return runs.set_index(SEED)[ACCURACY]


def draw_seeds(
    panels: Mapping[str, Mapping[str, "pd.Series[float]"]], path: Path, bounds: Mapping[str, tuple[float, float]]
) -> None:
    """Draw every seed of each configuration, and the median.

    Args:
        panels: by the title of each panel, the test accuracies of each configuration.
        path: PNG file to write.
        bounds: chance and ceiling of each panel.
    """
    figure = Figure(figsize=(min(10, 1.2 + 2.2 * len(panels)), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    generator = np.random.default_rng(0)
    for axis, (title, configurations) in zip(axes, panels.items(), strict=True):
        chance, ceiling = bounds[title]
        axis.axhline(ceiling, color="0.5", linestyle=":", linewidth=1)
        axis.axhline(chance, color="0.5", linestyle="--", linewidth=1)
        for place, values in enumerate(configurations.values()):
            x = place + generator.uniform(-0.18, 0.18, len(values))
            axis.scatter(x, values, s=14, alpha=0.6, color=f"C{place % 10}", edgecolors="none")
            axis.hlines(values.median(), place - 0.3, place + 0.3, color=f"C{place % 10}", linewidth=2)
        axis.set_xticks(range(len(configurations)), list(configurations), fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3, axis="y")
        axis.tick_params(axis="y", labelsize=8)
    axes[0].set_ylabel("test accuracy; dots: seeds, bar: median", fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
