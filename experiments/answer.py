"""Draw the figure at the top of docs/findings.md from the runs that three studies have stored.

python -m experiments.answer
"""

from pathlib import Path

import pandas as pd
from experiments.study_report import Pair, differences, prepare_differences
from matplotlib.figure import Figure

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "findings.png"
LAYERS, BOTH, BUDGET = "model.num_layers", "model.bidirectional", "model.parameter_budget"
_COLORS = {"better": "C2", "worse": "C3", "the same": "0.45", "open": "0.45"}


def main() -> None:
    studies = ("architecture", "depth", "direction")
    runs = pd.concat([pd.read_csv(HERE / name / "runs.csv").assign(study=name) for name in studies])
    # Queries, values and budgets of the study of direction.
    asked = [
        ("slots, asked last, 1,000 parameters", "last", 4, 1000),
        ("slots, asked last, 4,000 parameters", "last", 4, 4000),
        ("slots, asked at both ends, 4,000", "both", 4, 4000),
        ("slots, asked first, 1,000 parameters", "first", 4, 1000),
        ("slots, asked first, 4,000 parameters", "first", 4, 4000),
        ("slots of two values, asked last", "last", 2, 1000),
        ("sinusoids", "sinusoids", 0, 600),
    ]
    directions = []
    for name, query, values, budget in asked:
        keys = {"study": "direction", "data.query": query, "data.values": values, BUDGET: budget}
        directions.append(_pair(name, keys, BOTH, True, False))
    tasks = ("step_xor, 5 bits", "step_xor, 3 bits", "sinusoids", "temporal_order", "word")
    layers = [_pair(task, {"study": "depth", "task": task}, LAYERS, 2, 1) for task in tasks]
    layers.append(_pair("word, 4 layers", {"study": "depth", "task": "word"}, LAYERS, 4, 1))
    sizes = []
    for task, budgets in runs[runs["study"] == "architecture"].groupby("task", sort=False)[BUDGET].unique().items():
        keys = {"study": "architecture", "task": task, LAYERS: 1, BOTH: False}
        sizes.append(_pair(str(task), keys, BUDGET, max(budgets), min(budgets)))
    groups = {
        "2 directions instead of 1, equal parameters": directions,
        "2 layers instead of 1, equal parameters": layers,
        "3 to 4 times the parameters, 1 layer, 1 direction": sizes,
    }
    draw({title: differences(runs, pairs) for title, pairs in groups.items()}, FIGURE)


def _pair(name: str, keys: dict[str, object], key: str, one: object, other: object) -> Pair:
    return name, {**keys, key: one}, {**keys, key: other}


def draw(groups: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw differences of accuracy with their intervals, a row each.

    Args:
        groups: results of :func:`experiments.study_report.differences`, by their headings.
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
            labels.append((row["comparison"], False))
    axis.set_yticks(range(len(labels)), [text for text, _ in labels], fontsize=9)
    for label, (_, is_title) in zip(axis.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if is_title else "normal")
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlabel("difference of test accuracy (95 % for a group together; grey band: less than 0.01)")
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
