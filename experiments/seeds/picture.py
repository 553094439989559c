"""The figure of the seeds study."""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_COUNTS = (1, 3, 5, 10)
_EDGES = (0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03)
_DRAWS = 1000


def draw(scores: NDArray[np.float64], path: Path) -> None:
    """Draw how often the other seeds confirm a lead, against the lead, for several numbers of seeds.

    Args:
        scores: (architectures, seeds).
        path: PNG file to write.
    """
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axis = figure.subplots()
    one, other = np.triu_indices(len(scores), k=1)
    generator = np.random.default_rng(0)
    for number, count in enumerate(_COUNTS):
        orders = [generator.permuted(scores, axis=1) for _ in range(_DRAWS)]
        drawn, rest = (
            np.concatenate([part.mean(axis=1)[one] - part.mean(axis=1)[other] for part in parts])
            for parts in zip(*((order[:, :count], order[:, count:]) for order in orders), strict=True)
        )
        is_confirmed, lead = drawn * rest > 0, abs(drawn)
        bins = [(lead > low) & (lead <= high) for low, high in itertools.pairwise(_EDGES)]
        label = f"{count} seed{'s' * (count > 1)}"
        means = [lead[chosen].mean() for chosen in bins], [is_confirmed[chosen].mean() for chosen in bins]
        axis.plot(*means, "o-", color=f"C{number}", markersize=4, label=label)
    axis.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axis.set_xlabel("lead of one architecture over another, in test accuracy")
    axis.set_ylabel("share of leads that\nthe other seeds confirm")
    axis.legend(fontsize=9, title="a lead with", title_fontsize=9, loc="lower right")
    axis.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
