"""Compare one direction and two at equal parameters; write results.md, runs.csv and a figure.

python -m experiments.direction.measure
"""

from pathlib import Path

import pandas as pd
from experiments.study import Study, cost, store
from experiments.study_report import ACCURACY, compared, differences, draw_seeds, results, write

from grulab.report.sections import Section
from grulab.tasks.slots import accuracy_with_bits

HERE = Path(__file__).parent
QUERY, VALUES, BUDGET, BOTH = "data.query", "data.values", "model.parameter_budget", "model.bidirectional"
STOPS = 0.999
COMMON = [
    "data.fresh=true",
    "data.train_size=6400",
    "data.val_size=1000",
    "trainer.max_epochs=40",
    f"trainer.early_stopping_threshold={STOPS}",
    "trainer.gradient_clip_val=1",
    "trainer.accelerator=cpu",
    "optimizer.schedule=linear",
]
SLOTS = [
    ("first", 4, 1000),
    ("first", 4, 4000),
    ("last", 4, 1000),
    ("last", 4, 4000),
    ("both", 4, 4000),
    ("last", 2, 1000),
]
SOLVED = 0.99


def main() -> None:
    slots = Study("direction", ["data=slots", *COMMON], STOPS).run(
        [
            {QUERY: query, VALUES: values, BUDGET: budget, BOTH: both}
            for query, values, budget in SLOTS
            for both in (False, True)
        ]
    )
    control = Study("direction-sinusoids", ["data=sinusoids", *COMMON], STOPS).run(
        [{BUDGET: 600, BOTH: both} for both in (False, True)]
    )
    runs = pd.concat([slots, control], ignore_index=True)
    runs = runs.fillna({QUERY: "sinusoids", VALUES: 0}).astype({VALUES: int})
    store(HERE / "runs.csv", runs)
    groups = dict.fromkeys(zip(runs[QUERY], runs[VALUES], runs[BUDGET], strict=True))
    panels, bounds, pairs = {}, {}, []
    for query, values, budget in groups:
        title = _title(query, values, budget)
        part = runs[(runs[QUERY] == query) & (runs[VALUES] == values) & (runs[BUDGET] == budget)]
        panels[title] = {name: part[part[BOTH] == both][ACCURACY] for name, both in (("one", False), ("two", True))}
        bounds[title] = float(part["chance"].iloc[0]), float(part["ceiling"].iloc[0])
        keys = {QUERY: query, VALUES: values, BUDGET: budget}
        pairs.append(
            (f"{title.replace(chr(10), ', ')}: two against one", {**keys, BOTH: True}, {**keys, BOTH: False})
        )
    draw_seeds(panels, HERE / "figures" / "direction.png", bounds)
    table = results(
        runs, {QUERY: "asked", VALUES: "values", BUDGET: "budget", BOTH: "two directions"}, SOLVED, 2 * len(groups)
    )
    bits = ", ".join(f"{bits} bits {accuracy_with_bits(bits, 8, 4):.3f}" for bits in (4, 8, 12, 16))
    text = (
        f"`{' '.join(COMMON)}`, batches of 32. Chance is 0.25, at both ends 0.0625, with two values 0.5; "
        f"the ceiling is 1 (sinusoids 0.333 and {bounds[_title('sinusoids', 0, 600)][1]:.4f}). What a reader that is "
        f"asked last can reach with a number of bits: {bits}.\n\n"
        "![Test accuracy of every seed, one direction and two](figures/direction.png)"
    )
    sections = [
        Section("Accuracy", text, table),
        compared(differences(runs, pairs)),
        Section("Cost", cost([slots, control])),
    ]
    write("One direction and two", sections, HERE / "results.md")


def _title(query: str, values: int, budget: int) -> str:
    if query == "sinusoids":
        return f"sinusoids\n{budget} parameters"
    ends = {"first": "asked first", "last": "asked last", "both": "asked at both ends"}[query]
    return f"{ends}{', 2 values' * (values == 2)}\n{budget:,} parameters"


if __name__ == "__main__":
    main()
