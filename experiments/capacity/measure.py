"""Find how many units are needed for a number of slots at three budgets; write results.md, runs.csv and a figure.

python -m experiments.capacity.measure
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from experiments.capacity.picture import draw
from experiments.statistics import ALPHA
from experiments.study import LARGE_RATES, Study, cost, joined, runs_of
from experiments.study_report import write
from numpy.typing import NDArray
from scipy import stats

from grulab.report.sections import Section

HERE = Path(__file__).parent
SLOTS, SIZE = "data.slots", "model.hidden_size"
COUNTS, SIZES, BUDGETS = (2, 4, 6, 8), (2, 4, 6, 8, 12, 16, 24, 32), (300, 1000, 3000)
STEPS_PER_EPOCH, SOLVED = 100, 0.99
COMMON = [
    "data=slots",
    "data.query=last",
    "data.values=2",
    "data.fresh=true",
    f"data.train_size={32 * STEPS_PER_EPOCH}",
    "data.val_size=1000",
    "trainer.gradient_clip_val=1",
    f"trainer.early_stopping_threshold={SOLVED}",
    "trainer.accelerator=cpu",
]
_DRAWS = 2000


def main() -> None:
    parts = []
    for budget in BUDGETS:
        study = Study(
            f"capacity-{budget}", [*COMMON, f"trainer.max_epochs={budget // STEPS_PER_EPOCH}"], SOLVED, LARGE_RATES
        )
        parts.append(
            study.run([{SLOTS: slots, SIZE: size} for slots in COUNTS for size in SIZES]).labelled(budget=budget)
        )
    found = joined(parts)
    found.store(HERE, ["budget", SLOTS, SIZE])
    runs = found.judged.assign(solved=found.judged["val/accuracy"] >= SOLVED)
    draw(runs, HERE / "figures" / "capacity.png")
    rows = []
    for slots in COUNTS:
        chosen = runs[runs[SLOTS] == slots]
        cells = {f"{budget:,} steps": _in_words(chosen[chosen["budget"] == budget]) for budget in BUDGETS}
        rows.append({"slots": slots, "bits": slots, **cells})
    odd = runs.drop_duplicates([SLOTS, SIZE, "budget"])["tuned"]
    text = (
        f"`{' '.join(COMMON)}`, batches of 32. Of {len(odd)} rates {(odd == 'an edge').sum()} are at the edge of "
        f"what was tried, and of {(odd == 'none learned').sum()} configurations none learned. The smallest number of "
        f"units with which at least 6 of 10 seeds reached {SOLVED:.0%} of 1,000 validation sequences; in brackets "
        "what the seeds allow: from the first size at which a majority cannot be excluded to the first at which it "
        "is certain (95 % for all sizes of a cell together).\n\n"
        "![Seeds that solved it against units](figures/capacity.png)"
    )
    sections = [
        Section("Units needed at a budget", text, pd.DataFrame(rows)),
        Section("Growth", "\n\n".join(_growth(runs[runs["budget"] == budget], budget) for budget in BUDGETS)),
        Section("Cost", cost(runs, found.tuning)),
    ]
    write("Units for slots", sections, HERE / "results.md")


def _in_words(runs: pd.DataFrame) -> str:
    """Return the smallest size that is enough for most seeds, and the smallest that may be and that surely is."""
    solved = runs.groupby(SIZE)["solved"].sum()
    count = int(runs.groupby(SIZE).size().min())
    intervals = [stats.binomtest(int(number), count).proportion_ci(1 - ALPHA / len(solved)) for number in solved]
    most = _first([number > count / 2 for number in solved])
    may, surely = _first([one.high > 0.5 for one in intervals]), _first([one.low > 0.5 for one in intervals])
    return f"{most} ({may} to {surely})"


def _first(is_enough: Sequence[bool]) -> str:
    return next((str(size) for size, enough in zip(SIZES, is_enough, strict=True) if enough), f"over {SIZES[-1]}")


def _growth(runs: pd.DataFrame, budget: int) -> str:
    """Return the exponent with which the units needed grow with the number of slots.

    Where no size is enough the next one of the grid stands for it, which makes the exponent too small if anything.
    """
    solved = np.array([[runs_of(runs, {SLOTS: slots, SIZE: size})["solved"] for size in SIZES] for slots in COUNTS])
    generator = np.random.default_rng(0)
    count = solved.shape[2]
    slopes = [exponent(solved[:, :, generator.integers(0, count, count)]) for _ in range(_DRAWS)]
    low, high = np.quantile(slopes, (0.025, 0.975))
    return (
        f"{budget:,} steps: units grow as slots to the power {exponent(solved):.1f} ({low:.1f} to {high:.1f}, by "
        "resampling seeds)."
    )


def exponent(solved: NDArray[np.bool_]) -> float:
    """Return the slope of log units against log slots.

    Args:
        solved: (slots, sizes, seeds).
    """
    enough = np.concatenate([solved.mean(axis=2) > 0.5, np.ones((len(COUNTS), 1), dtype=bool)], axis=1)
    sizes = np.array([*SIZES, SIZES[-1] ** 2 / SIZES[-2]])
    units = sizes[enough.argmax(axis=1)]
    return float(np.polyfit(np.log(COUNTS), np.log(units), 1)[0])


if __name__ == "__main__":
    main()
