"""Compare one direction and two at equal parameters; write results.md, runs.csv and a figure.

python -m experiments.direction.measure
"""

from pathlib import Path

from experiments.study import STOPS, Study, cost, joined, runs_of, store, until_learned
from experiments.study_report import compared, differences, draw_seeds, results, write

from grulab.report.sections import Section
from grulab.tasks.slots import accuracy_with_bits

HERE = Path(__file__).parent
QUERY, VALUES, BUDGET, BOTH = "data.query", "data.values", "model.parameter_budget", "model.bidirectional"
COMMON = until_learned(40)
# Query, values and a budget that both fill to 2 %.
SLOTS = [
    ("first", 4, 1172),
    ("first", 4, 3728),
    ("last", 4, 1172),
    ("last", 4, 3728),
    ("both", 4, 3850),
    ("last", 2, 1042),
]
SINUSOIDS = 633
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
        [{BUDGET: SINUSOIDS, BOTH: both} for both in (False, True)]
    )
    no_slots: dict[str, str | int] = {QUERY: "sinusoids", VALUES: 0}
    found = joined([slots, control.labelled(**no_slots)])
    found.store(HERE, [QUERY, VALUES, BUDGET, BOTH])
    runs = found.judged
    groups = dict.fromkeys(zip(runs[QUERY], runs[VALUES], runs[BUDGET], strict=True))
    panels, pairs = {}, []
    for query, values, budget in groups:
        title = _title(query, values, budget)
        one, two = ({QUERY: query, VALUES: values, BUDGET: budget, BOTH: both} for both in (False, True))
        panels[title] = {"one": runs_of(runs, one), "two": runs_of(runs, two)}
        pairs.append((f"{title.replace(chr(10), ', ')}: two against one", two, one))
    draw_seeds(panels, HERE / "figures" / "direction.png", "directions")
    found_differences = differences(runs, pairs, SOLVED)
    store(HERE / "compared.csv", found_differences)
    one = {QUERY: "last", VALUES: 4, BOTH: False}
    name = "asked last, one direction: 3,728 parameters against 1,172"
    not_planned = differences(runs, [(name, {**one, BUDGET: 3728}, {**one, BUDGET: 1172})], SOLVED)
    store(HERE / "not_planned.csv", not_planned)
    table = results(
        runs, {QUERY: "asked", VALUES: "values", BUDGET: "budget", BOTH: "two directions"}, SOLVED, 2 * len(groups)
    )
    bits = ", ".join(f"{bits} bits {accuracy_with_bits(bits, 8, 4):.3f}" for bits in (2, 4, 8, 12, 16))
    text = (
        f"`{' '.join(COMMON)}`, batches of 32. Chance is 0.25, at both ends 0.0625, with two values 0.5; "
        f"the ceiling is 1 (sinusoids 0.333 and {control.judged['ceiling'].iloc[0]:.4f}). What a reader "
        f"that is asked last and has kept a number of bits reaches at most: {bits}.\n\n"
        "![Test accuracy of every seed, one direction and two](figures/direction.png)"
    )
    sections = [
        Section("Accuracy", text, table),
        compared(found_differences, SOLVED),
        Section(
            "Compared after the results had been seen",
            "As above, but the interval and both p are those of one comparison alone.",
            compared(not_planned, SOLVED).table,
        ),
        Section("Cost", cost(runs, found.tuning)),
    ]
    write("One direction and two", sections, HERE / "results.md")


def _title(query: str, values: int, budget: int) -> str:
    if query == "sinusoids":
        return f"sinusoids\n{budget} parameters"
    ends = {"first": "asked first", "last": "asked last", "both": "asked at both ends"}[query]
    return f"{ends}{', 2 values' * (values == 2)}\n{budget:,} parameters"


if __name__ == "__main__":
    main()
