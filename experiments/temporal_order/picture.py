"""The figure of the temporal order study."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def draw(runs: pd.DataFrame, published: Mapping[str, tuple[int, int]], limit: int, path: Path) -> None:
    """Draw the sequences that each run needed, at each level.

    Args:
        runs: a row for each run, with ``sequences``, infinite where it did not solve the task.
        published: for each variant the weights and the sequences of the LSTM.
        limit: the number of sequences that a run had.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    generator = np.random.default_rng(0)
    for axis, (variant, (weights, sequences)) in zip(axes, published.items(), strict=True):
        chosen = runs[runs["data.variant"] == variant]
        levels = list(dict.fromkeys(chosen["data.level"]))
        for place, level in enumerate(levels):
            values = chosen[chosen["data.level"] == level]["sequences"]
            x = place + generator.uniform(-0.25, 0.25, len(values))
            is_solved = np.isfinite(values)
            style = {"s": 16, "alpha": 0.6, "color": f"C{place}", "edgecolors": "none"}
            axis.scatter(x[is_solved], values[is_solved], **style)
            axis.scatter(x[~is_solved], np.full((~is_solved).sum(), limit), marker="^", **style)
            axis.hlines(min(values.median(), limit), place - 0.35, place + 0.35, color=f"C{place}", linewidth=2)
        axis.plot([levels.index("hard")], [sequences], "k*", markersize=11)
        axis.annotate(
            f"LSTM 1997,\n{weights} weights:\n{sequences:,}", (levels.index("hard") - 0.2, sequences), ha="right",
            va="center", fontsize=8,
        )  # fmt: skip
        axis.set_yscale("log")
        axis.set_ylim(top=1_200_000)
        ticks = [2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
        axis.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_yticks([], minor=True)
        axis.set_xticks(range(len(levels)), levels, fontsize=9)
        axis.set_xlabel("level")
        axis.set_title(f"{variant}, GRU of at most {weights} parameters", fontsize=10)
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("training sequences until solved")
    axes[0].scatter([], [], marker="o", color="0.4", s=16, label="a seed")
    axes[0].scatter([], [], marker="^", color="0.4", s=16, label=f"not solved in {limit:,}")
    axes[0].plot([], [], "-", color="0.4", linewidth=2, label="median")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False
    )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
