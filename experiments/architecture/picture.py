"""The figure that shows what each option buys."""

from pathlib import Path

import pandas as pd
from experiments.study_report import prepare_differences
from matplotlib.figure import Figure

_BUDGETS = {"smaller": ("C0", -0.16), "larger": ("C1", 0.16)}


def draw(found: pd.DataFrame, path: Path) -> None:
    """Draw the differences of accuracy that each option makes on each task.

    Args:
        found: :func:`experiments.study_report.differences` with columns task, budget (smaller or larger) and option.
        path: PNG file to write.
    """
    options, tasks = found["option"].unique(), found["task"].unique()
    figure = Figure(figsize=(10, 0.9 + 0.42 * len(tasks)), layout="constrained")
    axes = figure.subplots(1, len(options), sharey=True, sharex=True)
    for axis, option in zip(axes, options, strict=True):
        prepare_differences(axis)
        for budget, (color, shift) in _BUDGETS.items():
            rows = found[(found["option"] == option) & (found["budget"] == budget)]
            for _, row in rows.iterrows():
                y = list(tasks).index(row["task"]) + shift
                axis.hlines(y, row["low"], row["high"], color=color, linewidth=1.5)
                is_open = row["verdict"] == "open"
                axis.plot(row["mean"], y, "o", markersize=5, color=color, markerfacecolor="w" if is_open else color)
        at_equal = "" if "parameters" in option else "\nat equal parameters"
        axis.set_title(option + at_equal, fontsize=10)
    axes[0].set_yticks(range(len(tasks)), tasks)
    axes[0].invert_yaxis()
    for budget, (color, _) in _BUDGETS.items():
        axes[-1].plot([], [], "o", color=color, label=f"{budget} budget")
    axes[-1].plot([], [], "o", color="0.4", markerfacecolor="w", label="open")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    figure.supxlabel("difference of test accuracy, 95 % for all together; grey: less than 0.01", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
