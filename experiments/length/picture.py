"""The figure of the length study."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def draw(trained: pd.DataFrame, limit: int, path: Path) -> None:
    """Draw the steps that each run took to solve the task; those that did not are above the line.

    Args:
        trained: a row for each run, with ``steps``, NaN where it was not solved, and ``diverged``.
        limit: the number of steps that a run has.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    delays = sorted(trained["data.delay"].unique())
    sizes = sorted(trained["model.hidden_size"].unique())
    not_solved, diverged = 1.5 * limit, 2.1 * limit
    generator = np.random.default_rng(0)
    for axis, bias in zip(axes, ("default", "chrono"), strict=True):
        for place, size in enumerate(sizes):
            chosen = trained[(trained["model.hidden_size"] == size) & (trained["model.update_bias"] == bias)]
            x = (
                chosen["data.delay"].map(delays.index)
                + 0.27 * (place - 1)
                + generator.uniform(-0.11, 0.11, len(chosen))
            )
            y = chosen["steps"].fillna(not_solved).mask(chosen["diverged"], diverged)
            axis.scatter(x, y, s=14, alpha=0.5, color=f"C{place}", label=f"{size} units", edgecolors="none")
        axis.axhline(limit * 1.2, color="0.6", linewidth=0.8)
        axis.set_yscale("log")
        ticks: dict[float, str] = {50: "50 or fewer", 100: "100", 200: "200", 500: "500", limit: f"{limit:,}"}
        ticks |= {not_solved: "not solved", diverged: "diverged"}
        axis.set_yticks(list(ticks), list(ticks.values()))
        axis.set_yticks([], minor=True)
        axis.set_xticks(range(len(delays)), [f"{delay:,}" for delay in delays])
        axis.set_xlabel("delay (steps of a sequence)")
        axis.set_title(f"update bias: {bias}", fontsize=10)
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("steps of training until solved")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes), frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
