"""Find how many units are needed for a number of slots at three budgets; write results.md, runs.csv and a figure.

python -m experiments.capacity.measure
"""

from pathlib import Path

import numpy as np
import pandas as pd
from experiments.capacity.picture import draw
from experiments.tuned import LEVEL, Study, cost, store
from scipy import stats

from grulab.report.sections import Section, to_markdown
from grulab.run_folder.metrics_csv import read_table
from grulab.system.cores import available_cores

HERE = Path(__file__).parent
SLOTS, SIZE = "data.slots", "model.hidden_size"
COUNTS, SIZES, BUDGETS = (2, 4, 6, 8), (2, 3, 4, 6, 8, 12, 16, 24, 32, 48), (500, 1500, 5000)
STEPS_PER_EPOCH, SOLVED = 100, 0.99
COMMON = [
    "data=slots",
    "data.query=last",
    "data.fresh=true",
    f"data.train_size={32 * STEPS_PER_EPOCH}",
    "data.val_size=1000",
    f"trainer.max_epochs={BUDGETS[-1] // STEPS_PER_EPOCH}",
    "trainer.gradient_clip_val=1",
    "trainer.early_stopping_threshold=0.9999",
    "trainer.accelerator=cpu",
]


def main() -> None:
    runs = Study("capacity", COMMON).run([{SLOTS: slots, SIZE: size} for slots in COUNTS for size in SIZES])
    for budget in BUDGETS:
        runs[f"at {budget}"] = [_best_until(folder, budget // STEPS_PER_EPOCH) for folder in runs["folder"]]
    store(HERE / "runs.csv", runs)
    needed = {(slots, budget): _needed(runs[runs[SLOTS] == slots], budget) for slots in COUNTS for budget in BUDGETS}
    draw(runs, needed, HERE / "figures" / "capacity.png")
    rows = [
        {
            "slots": slots,
            "bits": 2 * slots,
            **{f"{budget:,} steps": _in_words(*needed[slots, budget]) for budget in BUDGETS},
        }
        for slots in COUNTS
    ]
    edges = int(runs.groupby([SLOTS, SIZE])["edge"].first().sum())
    text = (
        f"`{' '.join(COMMON)}`, batches of 32; of {len(COUNTS) * len(SIZES)} configurations {edges} chose a rate at "
        "the edge of what was tried. The smallest number of units with which at least 6 of 10 seeds reached "
        f"{SOLVED:.0%}; in brackets what the seeds allow: from the first size at which a majority cannot be excluded "
        "to the first at which it is certain (95 %, for all sizes together).\n\n"
        "![Seeds that solved it against units](figures/capacity.png)"
    )
    sections = [
        Section("Units needed at a budget", text, pd.DataFrame(rows)),
        Section("Growth", _growth(needed)),
        Section("Cost", cost([runs], available_cores()) + "."),
    ]
    report = to_markdown("Units for slots", sections)
    (HERE / "results.md").write_text(report, encoding="utf-8")
    print(report)


def _best_until(folder: Path, epochs: int) -> float:
    table = read_table(folder)
    return 0.0 if table is None else float(table["val/accuracy"].iloc[:epochs].max())


def _needed(runs: pd.DataFrame, budget: int) -> tuple[int | None, int | None, int | None]:
    """Return the smallest size that is enough for most seeds, and the smallest that may be and that surely is."""
    solved = runs.groupby(SIZE)[f"at {budget}"].agg(lambda scores: (scores >= SOLVED).sum())
    count = int(runs.groupby(SIZE).size().min())
    may, surely, most = None, None, None
    for size, successes in zip(solved.index.astype(int), solved, strict=True):
        interval = stats.binomtest(int(successes), count).proportion_ci(1 - LEVEL / len(solved))
        may = size if may is None and interval.high > 0.5 else may
        most = size if most is None and successes > count / 2 else most
        surely = size if surely is None and interval.low > 0.5 else surely
    return most, may, surely


def _in_words(most: int | None, may: int | None, surely: int | None) -> str:
    ends = [str(end) if end else f"over {SIZES[-1]}" for end in (may, surely)]
    return f"{most or f'over {SIZES[-1]}'} ({ends[0]} to {ends[1]})"


def _growth(needed: dict[tuple[int, int], tuple[int | None, int | None, int | None]]) -> str:
    """Return the exponent with which the units needed grow with the number of slots, for each budget."""
    lines = []
    for budget in BUDGETS:
        known = [(slots, most) for slots in COUNTS if (most := needed[slots, budget][0])]
        if len(known) < 3:
            lines.append(f"{budget:,} steps: too few sizes were enough to fit anything.")
            continue
        slots, units = np.log(np.array(known, dtype=float)).T
        fit = stats.linregress(slots, units)
        half = stats.t.ppf(0.975, len(known) - 2) * fit.stderr
        lines.append(
            f"{budget:,} steps: units grow as slots to the power {fit.slope:.1f} ({fit.slope - half:.1f} to "
            f"{fit.slope + half:.1f}, from {len(known)} points)."
        )
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
