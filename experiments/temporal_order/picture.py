"""The figure of the temporal order study."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Above the numbers of the LSTM.
_NOT = 6


def draw(runs: pd.DataFrame, published: Mapping[str, tuple[int, int]], limit: int, path: Path) -> None:
    """Draw the sequences that each run needed, at each level.

    Args:
        runs: a row for each run, with ``sequences``, infinite where it did not solve the task.
        published: for each variant the weights and the sequences of the LSTM.
        limit: the number of sequences that a run had.
        path: PNG file to write.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    generator = np.random.default_rng(0)
    for axis, (variant, (weights, sequences)) in zip(axes, published.items(), strict=True):
        chosen = runs[runs["data.variant"] == variant]
        levels = list(dict.fromkeys(chosen["data.level"]))
        for place, level in enumerate(levels):
            values = chosen[chosen["data.level"] == level]["sequences"].replace(np.inf, limit * _NOT)
            x = place + generator.uniform(-0.2, 0.2, len(values))
            axis.scatter(x, values, s=14, alpha=0.6, color=f"C{place}", edgecolors="none")
            axis.hlines(values.median(), place - 0.3, place + 0.3, color=f"C{place}", linewidth=2)
        hard = levels.index("hard")
        axis.plot([hard], [sequences], "k*", markersize=11, label=f"LSTM 1997, {weights} weights: {sequences:,}")
        axis.axhline(limit * _NOT * 0.75, color="0.6", linewidth=0.8)
        axis.set_yscale("log")
        ticks = [2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
        axis.set_yticks([*ticks, limit * _NOT], [*(f"{tick:,}" for tick in ticks), f"not in {limit:,}"])
        axis.set_yticks([], minor=True)
        axis.set_xticks(range(len(levels)), levels, fontsize=8)
        axis.set_title(f"{variant}, GRU of at most {weights} parameters", fontsize=9)
        axis.legend(fontsize=8, loc="upper left")
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("training sequences until solved", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
