"""The figure of the length study."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_NOT = 1.6


def draw(trained: pd.DataFrame, limit: int, path: Path) -> None:
    """Draw the steps that each run took to solve the task; those that did not are above the line.

    Args:
        trained: a row for each run, with ``steps``, NaN where it was not solved.
        limit: the number of steps that a run has.
        path: PNG file to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    delays = sorted(trained["data.delay"].unique())
    sizes = sorted(trained["model.hidden_size"].unique())
    generator = np.random.default_rng(0)
    for axis, bias in zip(axes, ("default", "chrono"), strict=True):
        for place, size in enumerate(sizes):
            chosen = trained[(trained["model.hidden_size"] == size) & (trained["model.update_bias"] == bias)]
            x = (
                chosen["data.delay"].map(delays.index)
                + 0.27 * (place - 1)
                + generator.uniform(-0.09, 0.09, len(chosen))
            )
            y = chosen["steps"].fillna(limit * _NOT) * generator.uniform(0.94, 1.06, len(chosen))
            axis.scatter(x, y, s=14, alpha=0.6, color=f"C{place}", label=f"{size} units", edgecolors="none")
        axis.axhline(limit * 1.2, color="0.6", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_yticks([50, 100, 200, 500, 1000, limit * _NOT], ["50", "100", "200", "500", "1,000", "not solved"])
        axis.set_yticks([], minor=True)
        axis.set_xticks(range(len(delays)), [f"{delay:,}" for delay in delays])
        axis.set_xlabel("delay (steps)")
        axis.set_title(f"update bias: {bias}", fontsize=10)
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("steps of training until solved")
    # Runs that learned nothing are in the left one only, so there is room above in the right one.
    axes[1].legend(fontsize=8, loc="upper left")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
