"""Tables and figures of studies that compare configurations over tuned runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.statistics import ALPHA, exact_test, holm, paired, rank_test, share
from experiments.study import LR, SEED, runs_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grulab.report.sections import Section, to_markdown

# The name of a comparison, and the keys of the one and the other.
Pair = tuple[str, Mapping[str, object], Mapping[str, object]]

_COLUMNS = 4
# A panel in which all runs are this near the ceiling shows no more than that.
_NEAR = 0.1
ACCURACY = "test/accuracy"
# A smaller difference is none that anybody would pay for.
MARGIN = 0.01
_DIFFERENCES = {-0.5: "−.5", -0.1: "−.1", -MARGIN: "−.01", 0.0: "0", MARGIN: ".01", 0.1: ".1", 0.5: ".5"}
COMPARED = (
    "Differences over seeds, which have the same data and the chosen rates, with intervals of Student's t; all "
    "{count} hold together at 95 %, and both kinds of p are corrected for their number: of the ranks of the "
    "accuracies (Mann and Whitney), and of the numbers of runs that end at {solved:g} or more (Fisher). Better or "
    "worse: the interval is on one side of 0, p of ranks is below 0.05, and the difference is over 0.01. The same: "
    "the interval is within 0.01 of 0. What is neither is open, and so is what rests on a rate at an edge of those "
    "that were tried, or on runs that learned nothing at any. Where some runs learn and others do not the interval "
    "may reach beyond what is possible, and the numbers of runs say more."
)


def results(runs: pd.DataFrame, keys: Mapping[str, str], solved: float, comparisons: int) -> pd.DataFrame:
    """Return a row for each configuration: its keys, parameters, rate, accuracies and how many seeds solved it.

    Args:
        runs: ``judged`` of :class:`experiments.study.Runs`.
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


def differences(runs: pd.DataFrame, pairs: Sequence[Pair], solved: float) -> pd.DataFrame:
    """Compare configurations two by two.

    Args:
        runs: as for :func:`results`.
        pairs: a name, and the keys of the one and the other.
        solved: the test accuracy from which a run has solved its task.

    Returns:
        A row for each pair: the mean difference of the test accuracy over seeds, which have equal data; ``low`` and
        ``high`` between which it is at 95 % for all pairs together; ``one`` and ``other``, how many of the ``seeds``
        solved the task; p values of both, corrected for all pairs; and the verdict, as COMPARED explains.
    """
    chosen = [(_of(runs, one), _of(runs, other)) for _, one, other in pairs]
    counts = [[int((part[ACCURACY] >= solved).sum()) for part in parts] for parts in chosen]
    by_ranks = holm([rank_test(one[ACCURACY], other[ACCURACY]) for one, other in chosen])
    by_counts = holm(
        [exact_test(pair[0], pair[1], len(parts[0])) for pair, parts in zip(counts, chosen, strict=True)],
    )
    rows = []
    for (name, _, _), parts, pair, p, p_solved in zip(pairs, chosen, counts, by_ranks, by_counts, strict=True):
        mean, low, high = paired(parts[0][ACCURACY], parts[1][ACCURACY], len(pairs))
        is_tuned = all((part["tuned"] == "").all() for part in parts)
        rows.append(
            {
                "comparison": name,
                "mean": mean,
                "low": low,
                "high": high,
                "p": p,
                "one": pair[0],
                "other": pair[1],
                "seeds": len(parts[0]),
                "p_solved": p_solved,
                "verdict": verdict(mean, low, high, p) if is_tuned else "open",
            }
        )
    return pd.DataFrame(rows)


def compared(found: pd.DataFrame, solved: float) -> Section:
    """Return the section of :func:`differences`."""
    rows = [
        {
            "comparison": row["comparison"],
            "difference": f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
            "p of ranks": f"{row['p']:.4f}",
            f"at {solved:g} or more": f"{row['one']} and {row['other']} of {row['seeds']}",
            "p of runs": f"{row['p_solved']:.4f}",
            "verdict": row["verdict"],
        }
        for _, row in found.iterrows()
    ]
    return Section("Compared", COMPARED.format(count=len(found), solved=solved), pd.DataFrame(rows))


def write(title: str, sections: Sequence[Section], path: Path) -> None:
    """Write a report, and print it."""
    text = to_markdown(title, sections)
    path.write_text(text, encoding="utf-8")
    print(text)


def verdict(mean: float, low: float, high: float, p: float) -> str:
    """Return better, worse, the same or open; see COMPARED."""
    if (low > 0 or high < 0) and p < ALPHA and abs(mean) > MARGIN:
        return "better" if mean > 0 else "worse"
    return "the same" if low >= -MARGIN and high <= MARGIN else "open"


def _of(runs: pd.DataFrame, keys: Mapping[str, object]) -> pd.DataFrame:
    own = runs_of(runs, keys)
    assert own[SEED].is_unique, keys
    return own.set_index(SEED)


def prepare_differences(axis: Axes) -> None:
    """Make an axis that is linear within MARGIN, where differences are none, and logarithmic beyond."""
    axis.axvspan(-MARGIN, MARGIN, color="0.92")
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=MARGIN, linscale=0.7)
    axis.set_xticks(list(_DIFFERENCES), list(_DIFFERENCES.values()), fontsize=9)
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3, axis="x")


def draw_seeds(panels: Mapping[str, Mapping[str, pd.DataFrame]], path: Path, label: str) -> None:
    """Draw the test accuracy of every seed of each configuration, and the median.

    Args:
        panels: by the title of each panel, the runs of each configuration; chance and ceiling of a panel are equal.
        path: PNG file to write.
        label: what the configurations of a panel are.
    """
    lines = -(-len(panels) // _COLUMNS)
    columns = -(-len(panels) // lines)
    figure = Figure(figsize=(1 + 1.9 * columns, 0.8 + 2.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    generator = np.random.default_rng(0)
    for axis, (title, configurations) in zip(axes, panels.items(), strict=False):
        chance, ceiling = next(iter(configurations.values()))[["chance", "ceiling"]].iloc[0]
        accuracies = [runs[ACCURACY] for runs in configurations.values()]
        axis.axhline(ceiling, color="0.5", linestyle=":", linewidth=1, label="ceiling")
        axis.axhline(chance, color="0.5", linestyle="--", linewidth=1, label="chance")
        for place, values in enumerate(accuracies):
            x = place + generator.uniform(-0.18, 0.18, len(values))
            axis.scatter(x, values, s=14, alpha=0.6, color=f"C{place % 10}", edgecolors="none")
            axis.hlines(values.median(), place - 0.3, place + 0.3, color=f"C{place % 10}", linewidth=2)
        if min(values.min() for values in accuracies) > ceiling - _NEAR:
            axis.set_ylim(ceiling - _NEAR, ceiling + 0.1 * _NEAR)
        axis.set_xticks(range(len(configurations)), list(configurations), fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3, axis="y")
        axis.tick_params(axis="y", labelsize=9)
    figure.supylabel("test accuracy", fontsize=10)
    figure.supxlabel(label, fontsize=10)
    axes[0].plot([], [], "o", color="0.4", markersize=4, label="a seed")
    axes[0].plot([], [], "-", color="0.4", linewidth=2, label="median")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9, frameon=False
    )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
