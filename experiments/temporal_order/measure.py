"""Count the sequences until temporal order is solved; write results.md, runs.csv and a figure.

python -m experiments.temporal_order.measure
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.statistics import interval_of_median, share
from experiments.study import LARGE_RATES, Study, cost, joined, runs_of
from experiments.study_report import rate_in_words, write
from experiments.temporal_order.picture import draw

from grulab.report.sections import Section
from grulab.tasks.temporal_order import LEVELS

HERE = Path(__file__).parent
VARIANT, LEVEL = "data.variant", "data.level"
# Hochreiter and Schmidhuber 1997, experiments 6a and 6b: weights, and sequences until the criterion; as quoted in the
# READMEs of https://github.com/cybertronai/schmidhuber-problems (temporal-order-3bit and -4bit).
PUBLISHED = {"6a": (156, 31_390), "6b": (308, 571_100)}
SEQUENCES, EPOCHS, SEEDS = 2000, 100, 20
COMMON = [
    "data=temporal_order",
    "data.fresh=true",
    f"data.train_size={SEQUENCES}",
    f"data.val_size={SEQUENCES}",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.early_stopping_threshold=1",
    "trainer.gradient_clip_val=1",
    "trainer.accelerator=cpu",
]


def main() -> None:
    parts = []
    for variant, (weights, _) in PUBLISHED.items():
        common = [*COMMON, f"model.parameter_budget={weights}"]
        study = Study(f"temporal-order-{variant}", common, rates=LARGE_RATES, seeds=range(SEEDS))
        parts.append(study.run([{VARIANT: variant, LEVEL: level} for level in LEVELS]))
    found = joined(parts)
    runs = found.judged
    runs["sequences"] = (SEQUENCES * runs["epochs"]).where(runs["val/accuracy"] == 1, np.inf)
    found.store(HERE, [VARIANT, LEVEL])
    draw(runs, PUBLISHED, SEQUENCES * EPOCHS, HERE / "figures" / "temporal_order.png")
    rows = []
    for variant, level in dict.fromkeys(zip(runs[VARIANT], runs[LEVEL], strict=True)):
        group = runs_of(runs, {VARIANT: variant, LEVEL: level})
        solved = group["sequences"][np.isfinite(group["sequences"])]
        low, high = interval_of_median(group["sequences"].tolist())
        rows.append(
            {
                "variant": variant,
                "level": level,
                "parameters": int(group["parameters"].iloc[0]),
                "rate": rate_in_words(group),
                "solved": share(len(solved), len(group), 2 * len(LEVELS)),
                "median sequences (95 %)": f"{_count(group['sequences'].median())} ({_count(low)} to {_count(high)})",
                "test errors of 10,000, median": f"{10_000 * (1 - group['test/accuracy']).median():.0f}",
            }
        )
    published = ", ".join(
        f"{variant} {sequences:,} sequences with {weights} weights"
        for variant, (weights, sequences) in PUBLISHED.items()
    )
    text = (
        f"`{' '.join(COMMON)}`, batches of 32, {SEEDS} seeds. Published, for the level hard: {published}. The median "
        'is over all seeds, its interval of order statistics; "over" is more than '
        f"{SEQUENCES * EPOCHS:,} sequences. Chance is 0.25 and 0.125, the ceiling 1.\n\n"
        "![Sequences until solved, at each level](figures/temporal_order.png)"
    )
    sections = [
        Section("Sequences until solved", text, pd.DataFrame(rows)),
        Section("Cost", cost(runs, found.tuning)),
    ]
    write("Temporal order", sections, HERE / "results.md")


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "over"


if __name__ == "__main__":
    main()
