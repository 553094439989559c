"""Kill the default sweep at random moments, and compare its leaderboard with an undisturbed sweep's.

python -m experiments.sweeps.survival
"""

import random
import tempfile
import time
from pathlib import Path

from experiments.sweeps.harness import Sweep, kill_until_done, leaderboard

KILLS = 40
ARGUMENTS = ["experiment=architecture"]


def main() -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        alone = Sweep(["train", "-m", *ARGUMENTS, "hydra.sweep.dir=alone"], root, root / "alone.log")
        assert alone.process.wait() == 0, (root / "alone.log").read_text()
        counts = kill_until_done(ARGUMENTS, root / "killed", KILLS, seconds=0.8, generator=random.Random(0))
        same = leaderboard(root / "alone") == leaderboard(root / "killed")
    names = {
        "parent": "kill -9 of the parent",
        "job": "kill -9 of a job",
        "starts": "starts until done",
        "orphans": "processes left behind",
        "jobs run again": "jobs run again after they were done",
    }
    rows = [f"| {names[name]} | {count} |" for name, count in counts.items()]
    verdict = "the same" if same else "ANOTHER"
    lines = [
        "# A sweep that is killed",
        "",
        "`python -m experiments.sweeps.survival`: the default sweep, 36 jobs, killed at random moments and resumed.",
        "",
        "| what | how many |",
        "|---|---|",
        *rows,
        f"| leaderboard.csv, apart from wall times | {verdict}, byte for byte |",
        "",
        f"It took {time.perf_counter() - began:.0f} s.",
    ]
    Path(__file__).with_name("survival.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
