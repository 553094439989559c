"""The figure of the seeds study."""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_COUNTS = (1, 2, 3, 5, 10, 20)
_DRAWS = 2000


def draw(scores: NDArray[np.float64], path: Path) -> None:
    """Draw how often the better of two architectures wins, against the number of seeds of each.

    The better one is that with the better mean of the seeds that are not drawn.

    Args:
        scores: (architectures, seeds).
        path: PNG file to write.
    """
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axis = figure.subplots()
    bands = ((0, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.04))
    pairs = list(itertools.combinations(range(len(scores)), 2))
    means = scores.mean(axis=1)
    generator = np.random.default_rng(0)
    for number, (low, high) in enumerate(bands):
        members = [scores[list(pair)] for pair in pairs if low <= abs(np.subtract(*means[list(pair)])) < high]
        shares = np.array([[_wins(one, other, count, generator) for count in _COUNTS] for one, other in members])
        label = f"{low:g} to {high:g} ({len(members)} pairs)"
        axis.plot(_COUNTS, shares.mean(axis=0), "o-", color=f"C{number}", markersize=4, label=label)
        axis.fill_between(
            _COUNTS, shares.min(axis=0), shares.max(axis=0), color=f"C{number}", alpha=0.12, linewidth=0
        )
    axis.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks(_COUNTS, [str(count) for count in _COUNTS])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("seeds of each architecture")
    axis.set_ylabel("share of draws that the better one wins")
    legend = "difference of means over all seeds;\nshaded: from the lowest to the highest pair"
    figure.legend(fontsize=8, title=legend, title_fontsize=8, loc="outside right center", frameon=False)
    axis.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def _wins(one: NDArray[np.float64], other: NDArray[np.float64], count: int, generator: np.random.Generator) -> float:
    """Return how often the mean of some seeds and the mean of the others have the same order, a tie as a half."""
    drawn, rest = np.zeros(_DRAWS), np.zeros(_DRAWS)
    for sign, seeds in ((1, one), (-1, other)):
        order = generator.permuted(np.tile(seeds, (_DRAWS, 1)), axis=1)
        drawn += sign * order[:, :count].mean(axis=1)
        rest += sign * order[:, count:].mean(axis=1)
    return float((0.5 + 0.5 * np.sign(drawn * rest)).mean())
