"""The default question at equal parameters, tuned, over all tasks; write results.md, runs.csv and a figure.

python -m experiments.architecture.measure
"""

import itertools
from pathlib import Path

import pandas as pd
from experiments.tuned import Configuration, Study, cost, store
from experiments.tuned_report import ACCURACY, COMPARED, compare, draw_seeds, results

from grulab.report.sections import Section, to_markdown
from grulab.system.cores import available_cores

HERE = Path(__file__).parent
LAYERS, BOTH, BUDGET = "model.num_layers", "model.bidirectional", "model.parameter_budget"
COMMON = [
    "data.fresh=true",
    "data.train_size=6400",
    "data.val_size=1000",
    "trainer.max_epochs=12",
    "trainer.early_stopping_threshold=0.999",
    "trainer.gradient_clip_val=1",
    "trainer.accelerator=cpu",
    "optimizer.schedule=linear",
]
TASKS = {
    "sinusoids": ["data=sinusoids"],
    "hidden_markov": ["data=hidden_markov"],
    "temporal_order": ["data=temporal_order"],
    "keep": ["data=keep", "data.delay=50"],
    "slots": ["data=slots", "data.slots=4", "data.min_length=6", "data.max_length=12"],
    "word": ["data=word"],
    "step_xor": ["data=step_xor"],
}
BUDGETS = (600, 4000)
SHAPES = list(itertools.product((1, 2), (False, True)))
SOLVED = 0.99


def main() -> None:
    parts = []
    configurations: list[Configuration] = [
        {BUDGET: budget, LAYERS: layers, BOTH: both} for budget in BUDGETS for layers, both in SHAPES
    ]
    for name, overrides in TASKS.items():
        found = Study(f"architecture-{name}", [*overrides, *COMMON]).run(configurations)
        parts.append(found.assign(task=name))
        parts[-1].attrs = found.attrs
    runs = pd.concat([part.reset_index(drop=True) for part in parts], ignore_index=True)
    store(HERE / "runs.csv", runs)
    panels, bounds = {}, {}
    pairs: list[tuple[str, dict[str, object], dict[str, object]]] = []
    for name in TASKS:
        part = runs[runs["task"] == name]
        for budget in BUDGETS:
            keys: dict[str, object] = {"task": name, BUDGET: budget}
            words = f"{name}, {budget:,}"
            one: dict[str, object] = {**keys, LAYERS: 1, BOTH: False}
            pairs.append((f"{words}: two layers against one", {**one, LAYERS: 2}, one))
            pairs.append((f"{words}: two directions against one", {**one, BOTH: True}, one))
        panels[name] = {
            f"{layers}{'↔' if both else '→'}\n{budget}": part[
                (part[BUDGET] == budget) & (part[LAYERS] == layers) & (part[BOTH] == both)
            ][ACCURACY]
            for budget in BUDGETS
            for layers, both in SHAPES
        }
        bounds[name] = float(part["chance"].iloc[0]), float(part["ceiling"].iloc[0])
    draw_seeds(panels, HERE / "figures" / "equal_parameters.png", bounds)
    count = len(TASKS) * len(configurations)
    words = "; ".join(f"{name} `{' '.join(overrides)}`" for name, overrides in TASKS.items())
    text = (
        f"`{' '.join(COMMON)}`, batches of 32; {words}. At most 600 and 4,000 parameters. Under the panels: layers, "
        f"one direction or two, parameters; intervals hold for all {count} rows together at 95 %.\n\n"
        "![Test accuracy of every seed on seven tasks](figures/equal_parameters.png)"
    )
    keys_of_rows = {"task": "task", BUDGET: "budget", LAYERS: "layers", BOTH: "two directions"}
    sections = [
        Section("Accuracy", text, results(runs, keys_of_rows, SOLVED, count)),
        Section("Compared", COMPARED.format(len(pairs)), compare(runs, pairs)),
        Section("Cost", cost(parts, available_cores()) + "."),
    ]
    report = to_markdown("Depth and direction at equal parameters, over seven tasks", sections)
    (HERE / "results.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
