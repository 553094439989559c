"""The figure of a confusion matrix, drawn without pyplot, which would keep it in memory and need a display."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 15
# With more classes, numbers in the cells cannot be read.
_MOST_NUMBERS = 20


def draw_confusion(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> "Figure":
    """Return the figure of a confusion matrix: rows are shares of each true class, numbers are sequences.

    Args:
        confusion: truth by prediction, in sequences.
        class_names: in the order of rows and columns.
    """
    # Matplotlib takes a third of a second to import, and most runs draw nothing.
    from matplotlib.figure import Figure

    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(9.0, 2.6 + 0.42 * len(class_names))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_shortened(name).replace("$", r"\$") for name in class_names]
    is_wide = max(map(len, names)) > 3
    font = 9 if len(names) <= _MOST_NUMBERS else 5
    axis.set_xticks(range(len(names)), names, rotation=90 if is_wide else 0, fontsize=font)
    axis.set_yticks(range(len(names)), names, fontsize=font)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title("Test sequences", fontsize=10)
    if len(names) <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour, number = "white" if shares[row, column] > 0.5 else "black", str(counts[row, column])
            text = axis.text(column, row, number, ha="center", va="center", fontsize=8, color=colour)
            # They are inside of the axes; measuring all of them for the layout takes time.
            text.set_in_layout(False)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    return figure


def _shortened(name: str) -> str:
    """Cut a long name in its middle: names often differ at the end."""
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
