"""Draw the figure at the top of docs/findings.md from what three studies have compared.

python -m experiments.answer
"""

from pathlib import Path

import pandas as pd
from experiments.study_report import prepare_differences
from matplotlib.figure import Figure

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "findings.png"
_COLORS = {"better": "C2", "worse": "C3", "the same": "0.45", "open": "0.45"}


LAYERS = (
    "step_xor, 5 bits: 2 layers against 1",
    "step_xor, 5 bits: 3 layers against 2",
    "step_xor, 3 bits: 2 layers against 1",
    "sinusoids: 2 layers against 1",
    "temporal_order: 2 layers against 1",
    "word: 2 layers against 1",
    "word: 4 layers against 1",
)


def main() -> None:
    direction, depth, sizes = (
        pd.read_csv(HERE / study / "compared.csv").set_index("comparison", drop=False)
        for study in ("direction", "depth", "architecture")
    )
    directions = direction["comparison"].str.removesuffix(": two against one").str.replace("asked", "slots, asked")
    sizes = sizes[sizes["comparison"].str.contains(", 1 layer: ")]
    depth = depth.loc[list(LAYERS)]
    groups = {
        "2 directions instead of 1, equal parameters": direction.assign(label=directions),
        "More layers, equal parameters": depth.assign(
            label=depth["comparison"].str.replace(" layers against ", " instead of ")
        ),
        "3 to 4.3 times the parameters, 1 layer, 1 direction": sizes.assign(
            label=sizes["comparison"].str.partition(",")[0]
        ),
    }
    draw(groups, FIGURE)


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
