"""The picture of a trace, drawn without pyplot, which would keep every figure in memory and require a display."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def hidden_states(
    path: Path,
    states: NDArray[np.float32],
    prefixes: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    truth: int,
    hidden_size: int,
) -> None:
    """Draw the hidden states over time, and below them the prediction of the model after each step.

    Args:
        path: path of the PNG file.
        states: (time, directions x hidden_size), from -1 to 1.
        prefixes: (prefixes,) lengths of the prefixes that the model has classified, in steps.
        probabilities: (prefixes, classes) probability of each class.
        truth: the correct class.
        hidden_size: units in one direction.
    """
    time, units = states.shape
    steps = np.arange(1, time + 1)
    height = min(6.0, 1.6 + 0.16 * units)
    figure = Figure(figsize=(7.5, height + 2.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 1.9], width_ratios=[1, 0.025])
    upper = figure.add_subplot(grid[0, 0])
    lower = figure.add_subplot(grid[1, 0], sharex=upper)

    image = upper.imshow(
        states.T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest",
        extent=(0.5, time + 0.5, units - 0.5, -0.5),
    )  # fmt: skip
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("hidden unit")
    if units <= 16:
        upper.set_yticks(range(units))
    upper.set_title("Hidden states of the last layer")
    if units > hidden_size:
        upper.axhline(hidden_size - 0.5, color="black", linewidth=1)
        upper.set_title("Hidden states of the last layer: above the line read forwards, below it backwards")
    upper.title.set_fontsize(10)
    figure.colorbar(image, cax=figure.add_subplot(grid[0, 1]), label="state")

    for index, curve in enumerate(probabilities.T):
        right = index == truth
        lower.plot(
            prefixes, curve, marker="o", markersize=3, linewidth=2.5 if right else 1.0,
            label=f"class {index}" + (" (truth)" if right else ""),
        )  # fmt: skip
    lower.set_ylim(-0.03, 1.03)
    lower.set_ylabel("probability")
    lower.set_xlabel("time step")
    lower.set_title("The answer, had the sequence ended after this step", fontsize=10)
    figure.legend(*lower.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4, frameon=False)
    lower.set_xlim(0.5, time + 0.5)
    if time <= 20:
        lower.set_xticks(steps)
    figure.savefig(path, dpi=130)
