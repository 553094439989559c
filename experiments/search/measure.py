"""Does a search find what a default does not, and does it go on as if it had never been killed? A quarter of an hour.

    python -m experiments.search.measure

The task is `temporal_order` with 100 to 110 steps, as first published, over 2,000 sequences and 4 epochs: 252 steps
with 32 sequences each. It writes results.md and figures/.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from experiments.sweeps.harness import Sweep, kill_until_done, leaderboard

from grulab.report.sections import Section, to_markdown
from grulab.sweep import manifest

HERE = Path(__file__).parent
TASK = [
    "data=temporal_order",
    "data.level=hard",
    "data.train_size=2000",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
]
TRIALS = 60
SEARCH = [
    "hydra/sweeper=optuna",
    f"hydra.sweeper.n_trials={TRIALS}",
    *TASK,
    "optimizer.lr=tag(log,interval(1e-3,1))",
    "optimizer.schedule=constant,cosine",
    "model.hidden_size=tag(log,range(4,65))",
    "model.num_layers=1,2",
    "data.batch_size=16,32,64",
]
ONE_SLOT = "hydra.launcher.cores=1"
KILLS = 10


def sweep(folder: Path, arguments: Sequence[str]) -> pd.DataFrame:
    """Run a sweep in a folder; return its leaderboard."""
    running = Sweep(
        ["train", "-m", *arguments, f"hydra.sweep.dir={folder.name}"], folder.parent, folder.with_suffix(".log")
    )
    assert running.process.wait() == 0, running.log.read_text()
    return pd.read_csv(folder / "leaderboard.csv")


def proposals(folder: Path) -> list[list[str]]:
    """Return what distinguishes the jobs of a sweep, in their order."""
    known = manifest.read(folder)
    assert known is not None
    return [job.overrides for job in known.jobs]


def found(root: Path) -> Section:
    """Compare the best of a search with the defaults."""
    default = sweep(root / "default", [*TASK, "seed=range(3)"]).iloc[0]
    began = time.perf_counter()
    board = sweep(root / "search", SEARCH)
    took = time.perf_counter() - began
    (HERE / "figures").mkdir(exist_ok=True)
    for name in ("search.png", "pareto.png"):
        shutil.copy(root / "search" / "figures" / name, HERE / "figures")
    shutil.copy(root / "search" / "leaderboard.md", HERE)
    best = board.iloc[0]
    keys = [key for key in board.columns if key.split(".")[0] in ("optimizer", "model", "data")]
    reached = int((board["val/accuracy"] >= 0.99).sum())
    table = pd.DataFrame(
        {
            "": ["the default: lr 0.02, 8 units", f"the best of {TRIALS} trials"],
            "val/accuracy, mean over seeds": [f"{row['val/accuracy']:.3f}" for row in (default, best)],
            "test/accuracy": [f"{row['test/accuracy']:.3f}" for row in (default, best)],
        }
    )
    chosen = ", ".join(f"{key} {best[key]}" for key in keys)
    text = (
        f"`grulab train -m {' '.join(SEARCH)}`, {took:.0f} s on two cores. The best: {chosen}. {reached} of {TRIALS} "
        "trials reach a mean of 0.99."
    )
    return Section("Found", text, table)


def killed(root: Path) -> Section:
    """Compare a search in one slot that is killed with one left alone."""
    arguments = [*SEARCH, ONE_SLOT]
    sweep(root / "alone", arguments)
    counts = kill_until_done(arguments, root / "killed", KILLS, seconds=60, generator=random.Random(0))
    alone, other = proposals(root / "alone"), proposals(root / "killed")
    rows = {
        "kill -9 of the parent": counts["parent"],
        "kill -9 of a job": counts["job"],
        "jobs of the search left alone": len(alone),
        "jobs of the search that was killed": len(other),
        "jobs with other values": sum(one != two for one, two in zip(alone, other, strict=False)),
        "jobs that are there twice": len(other) - len(set(map(tuple, other))),
        "jobs run again after they were done": counts["jobs run again"],
        "processes left behind": counts["orphans"],
        "leaderboard.csv, apart from wall times": "the same"
        if leaderboard(root / "alone") == leaderboard(root / "killed")
        else "ANOTHER",
    }
    text = f"The same search with `{ONE_SLOT}`, killed at random moments and resumed until it is done."
    return Section("Killed", text, pd.DataFrame({"what": rows.keys(), "how many": rows.values()}))


def main() -> None:
    began = time.perf_counter()
    # It is kept if something fails.
    root = Path(tempfile.mkdtemp()) / "experiments"
    root.mkdir()
    sections = [found(root), killed(root)]
    took = Section("Command", f"`python -m experiments.search.measure`, {time.perf_counter() - began:.0f} s.")
    report = to_markdown("Search", [took, *sections])
    (HERE / "results.md").write_text(report)
    print(report)
    shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()
