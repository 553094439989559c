"""The figure of the study: test accuracy by hidden size and direction."""

import itertools
from pathlib import Path

from matplotlib.figure import Figure

from grulab.report.leaderboard import Leaderboard

_LINES = {
    "majority": ("0.6", ":", "most frequent class"),
    "logistic_regression": ("C2", "--", "logistic regression on means, deviations, length"),
    "segment_ridge": ("C4", "-.", "ridge on means of three segments"),
    "MiniRocket": ("C3", "-", "MiniRocket"),
}


def draw(studies: dict[str, tuple[Leaderboard, dict[str, float]]], path: Path) -> None:
    """Draw a panel for each data set: the seeds' mean of each GRU, and the other classifiers as lines.

    Args:
        studies: for each data set its leaderboard, and the test accuracy of each other classifier.
        path: PNG file to write.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, len(studies))
    for axis, (name, (board, references)) in zip(axes, studies.items(), strict=True):
        sizes = sorted(board.done["model.hidden_size"].unique())
        for number, (is_both, layers) in enumerate(itertools.product((False, True), (1, 2))):
            jobs = board.done[
                board.done["model.bidirectional"].eq(is_both) & board.done["model.num_layers"].eq(layers)
            ]
            color, marker = ("C0" if is_both else "C1"), ("o" if layers == 1 else "s")
            label = f"GRU, {'two directions' if is_both else 'one direction'}, {layers} layer{'s' * (layers > 1)}"
            # Beside each other, so that equal accuracies do not hide one another.
            places = jobs["model.hidden_size"].map(sizes.index) + 0.05 * (number - 1.5)
            axis.plot(places, jobs["test/accuracy"], marker, color=color, markersize=3.5, alpha=0.35)
            means = jobs.groupby("model.hidden_size")["test/accuracy"].mean()
            line = "-" if layers == 1 else "--"
            ticks = [place + 0.05 * (number - 1.5) for place in range(len(sizes))]
            axis.plot(ticks, means, line, marker=marker, color=color, label=label)
        lowest = board.done["test/accuracy"].min()
        for reference, accuracy in references.items():
            color, line, label = _LINES[reference]
            if reference == "majority":
                axis.plot([], [], line, color=color, label=f"{label}: {accuracy:.3f}, below")
                continue
            lowest = min(lowest, accuracy)
            axis.axhline(accuracy, color=color, linestyle=line, linewidth=1.2, label=f"{label}: {accuracy:.3f}")
        axis.set_ylim(lowest - 0.02, 1.005)
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set_xlabel("hidden size (units in each layer and direction)")
        axis.set_ylabel("test accuracy")
        axis.set_title(f"{name}: means of three seeds, and the seeds (pale)", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    figure.savefig(path, dpi=120)
