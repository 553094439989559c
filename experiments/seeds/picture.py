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

    Args:
        scores: (architectures, seeds).
        path: PNG file to write.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    generator = np.random.default_rng(0)
    bands = ((0, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.04))
    pairs = list(itertools.combinations(range(len(scores)), 2))
    means = scores.mean(axis=1)
    for number, (low, high) in enumerate(bands):
        members = [(one, other) for one, other in pairs if low <= abs(means[one] - means[other]) < high]
        shares = []
        for count in _COUNTS:
            wins = []
            for one, other in members:
                drawn = [
                    scores[place][generator.integers(0, scores.shape[1], (_DRAWS, count))].mean(axis=1)
                    for place in (one, other)
                ]
                ahead = (drawn[0] - drawn[1]) * np.sign(means[one] - means[other])
                wins.append((ahead > 0).mean() + 0.5 * (ahead == 0).mean())
            shares.append(np.mean(wins))
        if members:
            label = f"{low:g} to {high:g} ({len(members)} pairs)"
            axis.plot(_COUNTS, shares, "o-", color=f"C{number}", markersize=4, label=label)
    axis.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks(_COUNTS, [str(count) for count in _COUNTS])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("seeds of each architecture")
    axis.set_ylabel("the better one has the better mean")
    axis.legend(fontsize=8, title="difference of the means over all seeds", title_fontsize=8)
    axis.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
