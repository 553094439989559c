"""Draw the figure at the top of docs/findings.md from what three studies have compared.

python -m experiments.answer
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from experiments.study_report import prepare_differences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "findings.png"
# Blue and orange: they can be told apart by everybody.
_COLORS = {"better": "C0", "worse": "C1", "the same": "0.45", "open": "0.45"}
# What is drawn, as a study has stored it, and its label; all comparisons are in the reports of the studies.
DIRECTIONS = {
    "asked first, 1,172 parameters: two against one": "8 slots, asked first (1,172)",
    "asked first, 3,728 parameters: two against one": "8 slots, asked first (3,728)",
    "asked last, 1,172 parameters: two against one": "8 slots, asked last (1,172)",
    "asked last, 3,728 parameters: two against one": "8 slots, asked last (3,728)",
    "asked at both ends, 3,850 parameters: two against one": "8 slots, asked at both ends (3,850)",
    "asked last, 2 values, 1,042 parameters: two against one": "8 slots of 1 bit, asked last (1,042)",
    "sinusoids, 633 parameters: two against one": "sinusoids (633)",
}
LAYERS = {
    name: name.replace(" layers against ", " instead of ")
    for name in (
        "step_xor, 5 bits: 2 layers against 1",
        "step_xor, 5 bits: 3 layers against 2",
        "step_xor, 3 bits: 2 layers against 1",
        "sinusoids: 2 layers against 1",
        "temporal_order: 2 layers against 1",
        "word: 2 layers against 1",
        "word: 3 layers against 1",
        "word: 4 layers against 1",
    )
}
MORE_UNITS = {"asked last, one direction: 3,728 parameters against 1,172": "8 slots, asked last (not planned)"}
UNITS = {
    "slots, 1 layer: 4,536 parameters against 1,365": "4 slots, asked last",
    "step_xor, 1 layer: 3,708 parameters against 963": "step_xor, 3 bits",
    "hidden_markov, 1 layer: 4,185 parameters against 1,389": "hidden_markov",
    "sinusoids, 1 layer: 4,287 parameters against 1,443": "sinusoids",
    "temporal_order, 1 layer: 4,404 parameters against 1,317": "temporal_order",
    "keep, 1 layer: 3,627 parameters against 900": "keep",
    "word, 1 layer: 3,606 parameters against 903": "word",
}


def main() -> None:
    units = [_stored("direction/not_planned.csv", MORE_UNITS), _stored("architecture/compared.csv", UNITS)]
    groups = {
        "2 directions instead of 1 (equal parameters)": _stored("direction/compared.csv", DIRECTIONS),
        "More layers, about 1,000 parameters": _stored("depth/compared.csv", LAYERS),
        "3 to 4.3 times the parameters, 1 layer": pd.concat(units),
    }
    draw(groups, FIGURE)


def _stored(path: str, labels: Mapping[str, str]) -> pd.DataFrame:
    found = pd.read_csv(HERE / path).set_index("comparison").loc[list(labels)]
    return found.assign(label=list(labels.values()))


def draw(groups: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw differences of accuracy with their intervals, a row each.

    Args:
        groups: rows of :func:`experiments.study_report.differences` with their ``label``, by their headings.
        path: PNG file to write.
    """
    height = 1.2 + 0.27 * sum(1 + len(found) for found in groups.values())
    figure = Figure(figsize=(10.5, height), layout="constrained")
    axis = figure.subplots()
    prepare_differences(axis)
    labels: list[tuple[str, bool]] = []
    numbers: list[str] = []
    for title, found in groups.items():
        labels.append((title, True))
        numbers.append("" if numbers else "mean (interval)                  learned of 10")
        for _, row in found.iterrows():
            y = len(labels)
            axis.hlines(
                y,
                row["low"],
                row["high"],
                color=_COLORS[row["verdict"]],
                linewidth=2,
                linestyles="dashed" if row["verdict"] == "open" else "solid",
            )
            _draw_mean(axis, row["mean"], y, row["verdict"])
            labels.append((row["label"], False))
            # Adding 0 takes the sign from what is -0 when it is rounded.
            mean, low, high = (round(row[name], 3) + 0.0 for name in ("mean", "low", "high"))
            text = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})   {row['one']:>2} / {row['other']}"
            numbers.append(text.replace("-", "−"))
    axis.set_yticks(range(len(labels)), [text for text, _ in labels], fontsize=9.5)
    for label, (_, is_title) in zip(axis.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if is_title else "normal")
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(labels) - 0.4, -0.7)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), numbers, fontsize=9.5)
    right.tick_params(axis="y", length=0)
    axis.set_xlabel("behind  ←  difference of test accuracy (logarithmic beyond 0.01)  →  ahead")
    for verdict in _COLORS:
        _draw_mean(axis, [], [], verdict, label=verdict)
    axis.fill_between([], [], color="0.92", label="within 0.01 of 0")
    figure.legend(loc="outside lower center", ncols=5, fontsize=9.5, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.15)


def _draw_mean(axis: Axes, x: ArrayLike, y: ArrayLike, verdict: str, label: str | None = None) -> None:
    color = _COLORS[verdict]
    inside = "w" if verdict == "open" else color
    axis.plot(x, y, "o", color=color, markerfacecolor=inside, markersize=6, label=label)


if __name__ == "__main__":
    main()
