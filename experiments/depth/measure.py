"""Compare one to four layers at equal parameters; write results.md, runs.csv and a figure.

python -m experiments.depth.measure
"""

from pathlib import Path

from experiments.study import STOPS, Study, cost, joined, runs_of, store, until_learned
from experiments.study_report import compared, differences, draw_seeds, results, write

from grulab.report.sections import Section

HERE = Path(__file__).parent
LAYERS = "model.num_layers"
DEPTHS = (1, 2, 3, 4)
COMMON = until_learned(20)
# Budgets that one to four layers fill to 5 %.
TASKS = {
    "sinusoids": ["data=sinusoids", "model.parameter_budget=1040"],
    "temporal_order": ["data=temporal_order", "data.level=hard", "model.parameter_budget=1095"],
    "word": ["data=word", "model.parameter_budget=1060"],
    "step_xor, 3 bits": ["data=step_xor", "data.bits=3", "model.parameter_budget=977"],
    "step_xor, 5 bits": ["data=step_xor", "data.bits=5", "model.parameter_budget=1040"],
}
SOLVED = 0.99


def main() -> None:
    parts = []
    for name, overrides in TASKS.items():
        study = Study(f"depth-{name.replace(', ', '-').replace(' ', '-')}", [*overrides, *COMMON], STOPS)
        parts.append(study.run([{LAYERS: layers} for layers in DEPTHS]).labelled(task=name))
    found = joined(parts)
    found.store(HERE, ["task", LAYERS])
    runs = found.judged
    panels, pairs = {}, []
    for name in TASKS:
        panels[name] = {str(layers): runs_of(runs, {"task": name, LAYERS: layers}) for layers in DEPTHS}
        for deep, flat in ((2, 1), (3, 1), (4, 1), (3, 2), (4, 2)):
            pairs.append(
                (f"{name}: {deep} layers against {flat}", {"task": name, LAYERS: deep}, {"task": name, LAYERS: flat})
            )
    draw_seeds(panels, HERE / "figures" / "depth.png", "layers, at equal parameters")
    found_differences = differences(runs, pairs, SOLVED)
    store(HERE / "compared.csv", found_differences)
    count = len(TASKS) * len(DEPTHS)
    words = "; ".join(f"{name} `{' '.join(overrides)}`" for name, overrides in TASKS.items())
    text = (
        f"`{' '.join(COMMON)}`, batches of 32; {words}. Intervals hold for all {count} rows together at 95 %.\n\n"
        "![Test accuracy of every seed against the number of layers](figures/depth.png)"
    )
    sections = [
        Section("Accuracy", text, results(runs, {"task": "task", LAYERS: "layers"}, SOLVED, count)),
        compared(found_differences, SOLVED),
        Section("Cost", cost(runs, found.tuning)),
    ]
    write("One to four layers", sections, HERE / "results.md")


if __name__ == "__main__":
    main()
