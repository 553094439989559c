"""Draw the figure at the top of docs/findings.md from what three studies have compared.

python -m experiments.answer
"""

from pathlib import Path

import pandas as pd
from experiments.architecture.measure import TASKS
from experiments.study_report import prepare_differences
from matplotlib.figure import Figure

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "findings.png"
_COLORS = {"better": "C2", "worse": "C3", "the same": "0.45", "open": "0.45"}


# The label of each row, the study and the name of its comparison.
Row = tuple[str, str, str]
ROWS: dict[str, list[Row]] = {
    "2 directions instead of 1, equal parameters": [
        ("slots, asked last, 1,172 parameters", "direction", "asked last, 1,172 parameters: two against one"),
        ("slots, asked last, 3,728", "direction", "asked last, 3,728 parameters: two against one"),
        ("slots, asked at both ends, 3,850", "direction", "asked at both ends, 3,850 parameters: two against one"),
        ("slots, asked first, 1,172", "direction", "asked first, 1,172 parameters: two against one"),
        ("slots, asked first, 3,728", "direction", "asked first, 3,728 parameters: two against one"),
        ("slots of two values, asked last", "direction", "asked last, 2 values, 1,042 parameters: two against one"),
        ("sinusoids", "direction", "sinusoids, 633 parameters: two against one"),
    ],
    "More layers, equal parameters": [
        ("step_xor, 5 bits: 2 instead of 1", "depth", "step_xor, 5 bits: 2 layers against 1"),
        ("step_xor, 5 bits: 3 instead of 2", "depth", "step_xor, 5 bits: 3 layers against 2"),
        ("step_xor, 3 bits: 2 instead of 1", "depth", "step_xor, 3 bits: 2 layers against 1"),
        ("sinusoids: 2 instead of 1", "depth", "sinusoids: 2 layers against 1"),
        ("temporal_order: 2 instead of 1", "depth", "temporal_order: 2 layers against 1"),
        ("word: 2 instead of 1", "depth", "word: 2 layers against 1"),
        ("word: 4 instead of 1", "depth", "word: 4 layers against 1"),
    ],
    "3 to 4.3 times the parameters, 1 layer, 1 direction": [
        (task, "architecture", f"{task}, 1 layer: {large:,} parameters against {small:,}")
        for task, (_, (small, large)) in TASKS.items()
    ],
}


def main() -> None:
    found = {
        study: pd.read_csv(HERE / study / "compared.csv").set_index("comparison")
        for study in ("direction", "depth", "architecture")
    }
    draw(
        {
            title: pd.DataFrame([found[study].loc[name].to_dict() | {"label": label} for label, study, name in rows])
            for title, rows in ROWS.items()
        },
        FIGURE,
    )


def draw(groups: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw differences of accuracy with their intervals, a row each.

    Args:
        groups: rows of :func:`experiments.study_report.differences` with their ``label``, by their headings.
        path: PNG file to write.
    """
    figure = Figure(figsize=(9, 0.9 + 0.27 * sum(1 + len(found) for found in groups.values())), layout="constrained")
    axis = figure.subplots()
    prepare_differences(axis)
    labels: list[tuple[str, bool]] = []
    for title, found in groups.items():
        labels.append((title, True))
        for _, row in found.iterrows():
            y, color = len(labels), _COLORS[row["verdict"]]
            axis.hlines(y, row["low"], row["high"], color=color, linewidth=2)
            inside = "w" if row["verdict"] == "open" else color
            axis.plot(row["mean"], y, "o", color=color, markerfacecolor=inside, markersize=6)
            labels.append((row["label"], False))
    axis.set_yticks(range(len(labels)), [text for text, _ in labels], fontsize=9)
    for label, (_, is_title) in zip(axis.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if is_title else "normal")
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlabel("difference of test accuracy (logarithmic beyond 0.01)")
    for name, color, inside in (
        ("better", "C2", "C2"),
        ("worse", "C3", "C3"),
        ("the same", "0.45", "0.45"),
        ("open", "0.45", "w"),
    ):
        axis.plot([], [], "o", color=color, markerfacecolor=inside, label=name)
    figure.legend(loc="outside lower right", ncols=4, fontsize=9, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
