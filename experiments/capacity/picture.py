"""The figure of the capacity study."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Draw the share of seeds that solved the task against the number of units, a panel for each budget.

    Args:
        runs: a row for each run, with ``budget`` and ``solved``.
        path: PNG file to write.
    """
    budgets = sorted(runs["budget"].unique())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(budgets), sharey=True)
    for axis, budget in zip(axes, budgets, strict=True):
        for number, (slots, part) in enumerate(runs[runs["budget"] == budget].groupby("data.slots")):
            share = part.groupby("model.hidden_size")["solved"].mean()
            axis.plot(share.index, share, "o-", color=f"C{number}", markersize=4, label=f"{slots} slots")
        axis.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axis.set_xlabel("hidden size (units)")
        axis.set_title(f"after {budget:,} steps", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of seeds at 99 % or more")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
