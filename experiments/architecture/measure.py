"""The default question at equal parameters, tuned, over all tasks; write results.md, runs.csv and two figures.

python -m experiments.architecture.measure
"""

from pathlib import Path

import pandas as pd
from experiments.architecture.picture import draw
from experiments.study import STOPS, Configuration, Study, cost, joined, runs_of, store, until_learned
from experiments.study_report import Pair, compared, differences, draw_seeds, results, write

from grulab.report.sections import Section

HERE = Path(__file__).parent
LAYERS, BOTH, BUDGET = "model.num_layers", "model.bidirectional", "model.parameter_budget"
COMMON = until_learned(12)
# The overrides of each task, and two budgets that all shapes fill alike, to 4 %.
TASKS = {
    "sinusoids": (["data=sinusoids"], (1443, 4287)),
    "hidden_markov": (["data=hidden_markov"], (1389, 4185)),
    "temporal_order": (["data=temporal_order"], (1317, 4404)),
    "keep": (["data=keep", "data.delay=50"], (900, 3627)),
    "slots": (["data=slots", "data.slots=4", "data.min_length=6", "data.max_length=12"], (1365, 4536)),
    "word": (["data=word"], (903, 3606)),
    "step_xor": (["data=step_xor"], (963, 3708)),
}
# (layers, both directions)
SHAPES = {"1 layer": (1, False), "2 layers": (2, False), "2 directions": (1, True)}
SOLVED = 0.99


def main() -> None:
    parts = []
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    pairs: list[Pair] = []
    places: list[dict[str, object]] = []
    for name, (overrides, budgets) in TASKS.items():
        configurations: list[Configuration] = [
            {BUDGET: budget, LAYERS: layers, BOTH: both} for budget in budgets for layers, both in SHAPES.values()
        ]
        found = Study(f"architecture-{name}", [*overrides, *COMMON], STOPS).run(configurations)
        parts.append(found.labelled(task=name))
        small, large = ({"task": name, BUDGET: budget, LAYERS: 1, BOTH: False} for budget in budgets)
        pairs.append((f"{name}, 1 layer: {budgets[1]:,} parameters against {budgets[0]:,}", large, small))
        places.append({"task": name, "budget": "larger", "option": "3 to 4 times the parameters"})
        for budget in budgets:
            title = f"{name}, {budget:,}"
            shapes = [{"task": name, BUDGET: budget, LAYERS: layers, BOTH: both} for layers, both in SHAPES.values()]
            one, deep, both = shapes
            pairs += [(f"{title}: 2 layers against 1", deep, one), (f"{title}: 2 directions against 1", both, one)]
            size = "smaller" if budget == budgets[0] else "larger"
            places += [{"task": name, "budget": size, "option": option} for option in ("2 layers", "2 directions")]
            panels[f"{name}\n{budget:,} parameters"] = {
                label.replace(" ", "\n"): runs_of(parts[-1].judged, keys)
                for label, keys in zip(SHAPES, shapes, strict=True)
            }
    every = joined(parts)
    every.store(HERE, ["task", BUDGET, LAYERS, BOTH])
    draw_seeds(panels, HERE / "figures" / "equal_parameters.png", "at equal parameters")
    found_differences = differences(every.judged, pairs, SOLVED)
    store(HERE / "compared.csv", found_differences)
    draw(pd.concat([found_differences, pd.DataFrame(places)], axis=1), HERE / "figures" / "answer.png")
    count = len(panels) * len(SHAPES)
    words = "; ".join(f"{name} `{' '.join(overrides)}`" for name, (overrides, _) in TASKS.items())
    text = (
        f"`{' '.join(COMMON)}`, batches of 32; {words}. Intervals hold for all {count} rows together at 95 %.\n\n"
        "![What each option buys on seven tasks](figures/answer.png)\n"
        "![Test accuracy of every seed on seven tasks](figures/equal_parameters.png)"
    )
    keys = {"task": "task", BUDGET: "budget", LAYERS: "layers", BOTH: "two directions"}
    sections = [
        Section("Accuracy", text, results(every.judged, keys, SOLVED, count)),
        compared(found_differences, SOLVED),
        Section("Cost", cost(every.judged, every.tuning)),
    ]
    write("Depth and direction at equal parameters, over seven tasks", sections, HERE / "results.md")


if __name__ == "__main__":
    main()
