"""Tables and figures of studies that compare configurations over tuned runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.study import LEVEL, LR, SEED, holm, paired, rank_test, share
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grulab.report.sections import Section, to_markdown

# The name of a comparison, and the keys of the one and the other.
Pair = tuple[str, Mapping[str, object], Mapping[str, object]]

_COLUMNS = 4
ACCURACY = "test/accuracy"
# A smaller difference is none that anybody would pay for.
MARGIN = 0.01
_DIFFERENCES = {-0.5: "−.5", -0.1: "−.1", -MARGIN: "−.01", 0.0: "0", MARGIN: ".01", 0.1: ".1", 0.5: ".5"}
COMPARED = (
    "Differences over seeds, which have the same data and the chosen rates; all {} intervals hold together at 95 %, "
    "and p is corrected for their number. Better or worse: the interval is on one side of 0, p is below 0.05, and "
    "the difference is over 0.01. The same: the interval is within 0.01 of 0. What is neither is open, and so is "
    "what rests on a rate at the edge of those that were tried."
)


def results(runs: pd.DataFrame, keys: Mapping[str, str], solved: float, comparisons: int) -> pd.DataFrame:
    """Return a row for each configuration: its keys, parameters, rate, accuracies and how many seeds solved it.

    Args:
        runs: see :meth:`experiments.study.Study.run`.
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
                "rate": rate_in_words(group),
                "median (lowest to highest)": f"{values.median():.3f} ({values.min():.3f} to {values.max():.3f})",
                f"at {solved:g} or more": share(is_solved, len(values), comparisons),
            }
        )
    return pd.DataFrame(rows)


def rate_in_words(runs: pd.DataFrame) -> str:
    """Return the rate of a configuration, and what is odd about it."""
    how = runs["tuned"].iloc[0]
    return f"{runs[LR].iloc[0]:g}" + f" ({how})" * bool(how)


def differences(runs: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Compare configurations two by two.

    Args:
        runs: as for :func:`results`.
        pairs: a name, and the keys of the one and the other.

    Returns:
        A row for each pair: the mean difference of the test accuracy over seeds, which have equal data; ``low`` and
        ``high`` between which it is at 95 % for all pairs together; the p value of a test of ranks, corrected for
        all pairs; and the verdict, as COMPARED explains.
    """
    chosen = [(_of(runs, one), _of(runs, other)) for _, one, other in pairs]
    scores = [(one[ACCURACY], other[ACCURACY]) for one, other in chosen]
    values = holm([rank_test(one, other) for one, other in scores])
    rows = []
    for (name, _, _), parts, (one, other), value in zip(pairs, chosen, scores, values, strict=True):
        mean, low, high = paired(one, other, len(scores))
        is_at_edge = any((part["tuned"] == "an edge").any() for part in parts)
        rows.append(
            {
                "comparison": name,
                "mean": mean,
                "low": low,
                "high": high,
                "p": value,
                "verdict": "open" if is_at_edge else verdict(mean, low, high, value),
            }
        )
    return pd.DataFrame(rows)


def compared(found: pd.DataFrame) -> Section:
    """Return the section of :func:`differences`."""
    rows = [
        {
            "comparison": row["comparison"],
            "difference": f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
            "p of ranks": f"{row['p']:.4f}",
            "verdict": row["verdict"],
        }
        for _, row in found.iterrows()
    ]
    return Section("Compared", COMPARED.format(len(found)), pd.DataFrame(rows))


def write(title: str, sections: Sequence[Section], path: Path) -> None:
    """Write a report, and print it."""
    text = to_markdown(title, sections)
    path.write_text(text, encoding="utf-8")
    print(text)


def verdict(mean: float, low: float, high: float, p: float) -> str:
    """Return better, worse, the same or open; see COMPARED."""
    if (low > 0 or high < 0) and p < LEVEL and abs(mean) > MARGIN:
        return "better" if mean > 0 else "worse"
    return "the same" if low >= -MARGIN and high <= MARGIN else "open"


def _of(runs: pd.DataFrame, keys: Mapping[str, object]) -> pd.DataFrame:
    for key, value in keys.items():
        runs = runs[runs[key] == value]
    assert runs[SEED].is_unique, keys
    return runs.set_index(SEED)


def prepare_differences(axis: Axes) -> None:
    """Make an axis that is linear within MARGIN, where differences are none, and logarithmic beyond."""
    axis.axvspan(-MARGIN, MARGIN, color="0.92")
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=MARGIN, linscale=0.7)
    axis.set_xticks(list(_DIFFERENCES), list(_DIFFERENCES.values()), fontsize=8)
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3, axis="x")


def draw_seeds(
    panels: Mapping[str, Mapping[str, "pd.Series[float]"]], path: Path, bounds: Mapping[str, tuple[float, float]]
) -> None:
    """Draw every seed of each configuration, and the median.

    Args:
        panels: by the title of each panel, the test accuracies of each configuration.
        path: PNG file to write.
        bounds: chance and ceiling of each panel.
    """
    lines = -(-len(panels) // _COLUMNS)
    columns = -(-len(panels) // lines)
    figure = Figure(figsize=(1 + 2.2 * columns, 0.4 + 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    generator = np.random.default_rng(0)
    for axis, (title, configurations) in zip(axes, panels.items(), strict=False):
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
    figure.supylabel("test accuracy; dots: seeds, bars: medians", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
