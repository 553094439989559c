"""Sweep GRUs over two real data sets, compare them with simple classifiers and MiniRocket, and write results.md.

    python -m experiments.real_data.measure [--data FOLDER]

Run it from the top of the checkout. The sweeps lie in outputs/real_data; jobs that are done there are not run again.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiments.real_data.datasets import NAMES, training_files
from experiments.real_data.picture import draw

from grulab.report.leaderboard import Leaderboard, effects, read_sweep, worth
from grulab.report.sections import Section, to_markdown
from grulab.report.statistics import interval
from grulab.run_folder import paths
from grulab.tasks.baselines import IN_WORDS
from grulab.training.worth import difference

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/real_data")
GRULAB = [sys.executable, "-c", "import sys; from grulab.cli import main; sys.exit(main())"]
COMMON = ["data=files", "optimizer.lr=0.01", "checkpoint.monitor=val/loss", "trainer.accelerator=cpu"]
SIZE, LAYERS, BOTH = "model.hidden_size", "model.num_layers", "model.bidirectional"
SWEPT = [f"{SIZE}=16,32,64", f"{LAYERS}=1,2", f"{BOTH}=false,true", "seed=0,1,2"]
BATCH, SCHEDULE = "data.batch_size", "optimizer.schedule"
CANDIDATES = [f"{BATCH}=8,32", f"{SCHEDULE}=constant,cosine", "data.seed=0,1,2"]
MINIROCKET = "MiniRocket"
ACCURACY = "test/accuracy"


@dataclass(frozen=True)
class Plan:
    """How a data set is learned.

    Attributes:
        fixed: overrides that were set in advance.
        units: hidden size at which the other settings are chosen, and at which the bar applies.
        bar: the mean test accuracy to reach with these units, one layer and two directions.
    """

    fixed: list[str]
    units: int
    bar: float


PLANS = {
    "JapaneseVowels": Plan(["trainer.max_epochs=30"], 64, 0.955),
    # Of 10 training sequences a class, 3 are for validation instead of 2.
    "BasicMotions": Plan(["trainer.max_epochs=60", "data.val_fraction=0.3"], 32, 0.90),
}


@dataclass(frozen=True)
class Study:
    """The results for one data set.

    Attributes:
        candidates: mean validation loss of each batch size and schedule, the smallest first.
        board: of the sweep.
        rocket: (seeds, test sequences) whether MiniRocket is right; None if it could not be run.
    """

    name: str
    plan: Plan
    candidates: pd.DataFrame
    overrides: list[str]
    board: Leaderboard
    rocket: list[list[bool]] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the .ts files; default: those of aeon")
    files = training_files(parser.parse_args().data)
    rocket, why_not = minirocket(files)
    studies = [study(name, file, rocket.get(name)) for name, file in files.items()]
    (HERE / "figures").mkdir(exist_ok=True)
    draw({NAMES[one.name]: (one.board, references(one)) for one in studies}, HERE / "figures" / "accuracy.png")
    sections = [part for one in studies for part in report(one, why_not)]
    text = to_markdown("Real data: results", [bars(studies), *sections])
    text += "\n![Test accuracy of GRUs, simple classifiers and MiniRocket](figures/accuracy.png)\n"
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def minirocket(files: dict[str, Path]) -> tuple[dict[str, list[list[bool]]], str]:
    """Return whether MiniRocket is right on each test sequence, for each seed; or {} and why it could not be run."""
    command = [sys.executable, "-m", "experiments.real_data.minirocket", *map(str, files.values())]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        why_not = process.stderr.strip().splitlines()[-1]
        return {}, "aeon is not installed" if "No module named 'aeon" in why_not else why_not
    found = json.loads(process.stdout.splitlines()[-1])
    return {name: found[str(file)] for name, file in files.items()}, ""


def study(name: str, file: Path, rocket: list[list[bool]] | None) -> Study:
    """Choose batch size and schedule on validation sequences, and sweep the architectures with them."""
    plan = PLANS[name]
    fixed = [*COMMON, f"data.path={file}", *plan.fixed]
    board = sweep(f"{name}-settings", [*fixed, f"{SIZE}={plan.units}", f"{BOTH}=true", *CANDIDATES])
    candidates = board.done.groupby([BATCH, SCHEDULE])["val/loss"].mean().sort_values().reset_index()
    overrides = [*plan.fixed, *(f"{key}={candidates[key].iloc[0]}" for key in (BATCH, SCHEDULE))]
    board = sweep(name, [*COMMON, f"data.path={file}", *overrides, *SWEPT])
    return Study(name, plan, candidates, [*COMMON, *overrides], board, rocket)


def sweep(name: str, overrides: list[str]) -> Leaderboard:
    folder = OUTPUTS / name
    command = [*GRULAB, "train", "-m", *overrides, f"name={name}", f"hydra.sweep.dir={folder}"]
    subprocess.run(command, check=True)
    return read_sweep(folder)


def references(one: Study) -> dict[str, float]:
    """Return the test accuracy of each simple classifier and of MiniRocket."""
    found = {baseline["name"]: baseline["test"] for baseline in one.board.done["baselines"].iloc[0]}
    return found if one.rocket is None else found | {MINIROCKET: float(np.mean(one.rocket))}


def bars(studies: Sequence[Study]) -> Section:
    """Return the accuracies that were asked for in advance, and those reached."""
    rows = []
    for one in studies:
        jobs = one.board.done
        jobs = jobs[(jobs[SIZE] == one.plan.units) & (jobs[LAYERS] == 1) & jobs[BOTH].astype(bool)]
        mean = jobs[ACCURACY].mean()
        seeds = ", ".join(f"{value:.3f}" for value in jobs.sort_values("seed")[ACCURACY])
        reached = "yes" if mean >= one.plan.bar else "no"
        rows.append([NAMES[one.name], one.plan.units, seeds, f"{mean:.3f}", f"{one.plan.bar:.3f}", reached])
    columns = ["data", "units", "test accuracy, seeds 0, 1, 2", "mean", "at least", "reached"]
    text = "One layer, two directions. The smallest accuracy was set before the measurement."
    return Section("Accuracy", text, pd.DataFrame(rows, columns=columns))


def report(one: Study, why_not: str) -> list[Section]:
    """Return the sections of one data set."""
    name, settings = NAMES[one.name], " ".join(one.overrides)
    return [
        Section(
            f"{name}: settings",
            f"Mean validation loss of {one.plan.units} units, one layer, two directions, over three divisions of the "
            "training sequences into train and val (`data.seed`). The smallest is taken; no test sequence has a part "
            "in it.",
            one.candidates.assign(**{"val/loss": one.candidates["val/loss"].map("{:.4f}".format)}),
        ),
        Section(
            f"{name}: architectures",
            f"`grulab train -m {settings} data.path={one.name}_TRAIN.ts {' '.join(SWEPT)}`\n\n"
            "Ranked by validation loss; means of three seeds and their 95 % intervals.",
            architectures(one.board),
        ),
        Section(
            f"{name}: what each key does to the test accuracy",
            "Differences over pairs of runs that agree in everything else. All runs have the same test sequences; "
            "the intervals do not say what other sequences would give.",
            effect_table(dataclasses.replace(one.board, metric=ACCURACY)),
        ),
        Section(
            f"{name}: is a GRU worth it?",
            f"The GRU is the first of the architectures above, chosen by validation loss: "
            f"{one.board.label(one.board.ranking.iloc[0])}. {worth(one.board)}",
            comparison(one, why_not),
        ),
    ]


def architectures(board: Leaderboard) -> pd.DataFrame:
    ranking = board.ranking
    return pd.DataFrame(
        {
            "rank": ranking["rank"],
            "units": ranking[SIZE],
            "layers": ranking[LAYERS],
            "directions": 1 + ranking[BOTH].astype(int),
            "parameters": ranking["parameters"].map("{:,}".format),
            "val loss": with_interval(ranking, "val/loss", "{:.4f}"),
            "test accuracy": with_interval(ranking, ACCURACY, "{:.3f}"),
        }
    )


def with_interval(ranking: pd.DataFrame, metric: str, form: str) -> list[str]:
    columns = [ranking[metric], ranking[f"{metric} low"], ranking[f"{metric} high"]]
    return [f"{form} ({form} to {form})".format(*row) for row in zip(*columns, strict=True)]


def effect_table(board: Leaderboard) -> pd.DataFrame:
    rows = []
    for key in (SIZE, LAYERS, BOTH):
        table = effects(board, key)
        first = table["value"].iloc[0]
        for row in table.iloc[1:].to_dict("records"):
            is_sure = abs(row["difference"]) > row["difference_interval"]
            found = f"{row['difference']:+.4f} ± {row['difference_interval']:.4f}"
            rows.append(
                [
                    key,
                    str(first).lower(),
                    str(row["value"]).lower(),
                    found,
                    row["pairs"],
                    "" if is_sure else "may be chance",
                ]
            )
    return pd.DataFrame(rows, columns=["key", "from", "to", "difference", "pairs", ""]).astype(str)


def comparison(one: Study, why_not: str) -> pd.DataFrame:
    """Return each classifier's accuracies, and the GRU's lead over it, paired over the test sequences."""
    jobs = one.board.members(one.board.ranking.iloc[0]).sort_values("seed")
    columns = ["classifier", "val accuracy", "test accuracy", "GRU minus it, 95 % interval"]
    rows = [["the GRU", f"{jobs['val/accuracy'].mean():.3f}", f"{jobs[ACCURACY].mean():.3f}", ""]]
    for place, baseline in enumerate(jobs["baselines"].iloc[0]):
        results = [baselines[place] for baselines in jobs["baselines"]]
        words = IN_WORDS[baseline["name"]]
        rows.append([words, f"{baseline['val']:.3f}", f"{baseline['test']:.3f}", lead(results)])
    if one.rocket is None:
        rows.append([MINIROCKET, "", "not measured", why_not])
    else:
        pairs = zip(jobs["folder"], one.rocket, strict=True)
        results = [paired(right_of(folder), np.array(other)) for folder, other in pairs]
        accuracies = pd.Series([float(np.mean(right)) for right in one.rocket])
        mean = f"{accuracies.mean():.3f} ± {interval(accuracies):.3f}"
        rows.append([f"{MINIROCKET}, {len(one.rocket)} seeds", "none needed", mean, lead(results)])
    return pd.DataFrame(rows, columns=columns)


def right_of(folder: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whether a GRU is right on each test sequence, in the order of the file: ids are test-1, test-2, ..."""
    table = pd.read_csv(folder / paths.PREDICTIONS, dtype=str)
    number = table["id"].str.removeprefix("test-").astype(int)
    return (table["truth"] == table["prediction"]).to_numpy()[np.argsort(number.to_numpy())]


def paired(right: np.ndarray[Any, np.dtype[np.bool_]], other: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, int]:
    only = {"only_gru": int((right & ~other).sum()), "only_baseline": int((other & ~right).sum())}
    return only | {"sequences": len(right)}


def lead(results: list[dict[str, Any]]) -> str:
    mean, half = difference(results)
    return f"{mean - half:+.3f} to {mean + half:+.3f}"


if __name__ == "__main__":
    main()
