"""Kill a sweep of each kind at random moments, and compare its leaderboard with an undisturbed sweep's.

python -m experiments.sweeps.kinds
"""

import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from experiments.sweeps.harness import Sweep, kill_until_done, leaderboard

from grulab.report.sections import Section, to_markdown

RESULTS = Path(__file__).with_name("kinds.md")
KILLS = 10
SMALL = ["trainer.accelerator=cpu", "trainer.max_epochs=6", "data.train_size=600"]
SIZES = ["model.hidden_size=2,4,8", "model.bidirectional=false,true"]
RATES = "optimizer.lr=0.01,0.02,0.04"


@dataclass(frozen=True)
class Kind:
    """A kind of sweep: the arguments that begin it and those that add to it, and the longest time to a kill."""

    begin: list[str]
    additions: list[str] = field(default_factory=list)
    seconds: float = 1.0


KINDS = {
    "a grid": Kind([*SIZES, "seed=range(4)"]),
    "a grid that grows": Kind([*SIZES, "seed=range(2)"], ["seed=range(6)", "model.hidden_size=2,4,8,16"]),
    "tuned keys": Kind([*SIZES, RATES, "seed=range(3)", "hydra.sweeper.tune=[optimizer.lr]"]),
    "rungs": Kind(
        [*SIZES, RATES, "seed=range(3)", "hydra.sweeper.tune=[optimizer.lr]", "hydra.sweeper.rungs=[1,2,6]"]
    ),
    "a race": Kind(["hydra/sweeper=race", *SIZES, "hydra.sweeper.max_jobs=60"]),
    "a race with rungs": Kind(["hydra/sweeper=race", *SIZES, RATES, "hydra.sweeper.rungs=[1,6]"]),
    "a search": Kind(
        [
            "hydra/sweeper=optuna",
            "model.hidden_size=range(2,33)",
            "optimizer.lr=tag(log,interval(1e-3,1e-1))",
            "hydra.sweeper.n_trials=15",
            "hydra.launcher.cores=1",
        ],
        seconds=3.0,
    ),
    "a search with rungs": Kind(
        [
            "hydra/sweeper=optuna",
            "model.hidden_size=range(2,33)",
            "optimizer.lr=tag(log,interval(1e-3,1e-1))",
            "hydra.sweeper.n_trials=15",
            "hydra.sweeper.rungs=[1,2,6]",
            "hydra.launcher.cores=1",
        ],
        seconds=3.0,
    ),
}


def alone(kind: Kind, folder: Path) -> None:
    """Run a sweep of a kind and what is added to it, undisturbed."""
    commands = [["train", "-m", *SMALL, *kind.begin, f"hydra.sweep.dir={folder.name}"]]
    if kind.additions:
        commands.append(["resume", folder.name, *kind.additions])
    for command in commands:
        sweep = Sweep(command, folder.parent, folder.with_suffix(".log"))
        assert sweep.process.wait() == 0, sweep.log.read_text()


def killed(kind: Kind, folder: Path, generator: random.Random) -> dict[str, int]:
    """Run a sweep of a kind under kills, then what is added to it under as many; return how many there were."""
    arguments = [*SMALL, *kind.begin]
    counts = kill_until_done(arguments, folder, KILLS, kind.seconds, generator)
    if kind.additions:
        more = kill_until_done(arguments, folder, KILLS, kind.seconds, generator, kind.additions)
        counts = {name: counts[name] + more[name] for name in counts}
    return counts


def main() -> None:
    began = time.perf_counter()
    rows = []
    for number, (name, kind) in enumerate(KINDS.items()):
        # It is kept if the two differ.
        folder = Path(tempfile.mkdtemp())
        alone(kind, folder / "alone")
        counts = killed(kind, folder / "killed", random.Random(number))
        is_same = leaderboard(folder / "alone") == leaderboard(folder / "killed")
        jobs = len(list((folder / "alone").glob("*/summary.json")))
        rows.append({"sweep": name, "jobs": jobs} | counts | {"leaderboard": "the same" if is_same else "ANOTHER"})
        print(rows[-1], "" if is_same else folder, flush=True)
        if is_same:
            shutil.rmtree(folder)
    table = pd.DataFrame(rows).rename(columns={"parent": "kills of the parent", "job": "kills of a job"})
    text = (
        "`python -m experiments.sweeps.kinds`: a sweep of each kind under `kill -9` at random moments, resumed until "
        "it is done, and compared with one left alone, byte for byte apart from wall times. With rungs, a job "
        "that is done goes on when it is promoted, and counts as run again. "
        f"It took {time.perf_counter() - began:.0f} s."
    )
    report = to_markdown(
        "Sweeps of each kind that are killed", [Section("Command", text), Section("Results", "", table)]
    )
    RESULTS.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
