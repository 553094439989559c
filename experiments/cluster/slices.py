"""Two hundred jobs over four slices at the same time: nothing twice, nothing missing, the local leaderboard.

python -m experiments.cluster.slices
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

from experiments.sweeps.harness import Sweep, done_jobs, leaderboard

_SWEEP = [
    "train", "-m", "model.hidden_size=4,8", "model.num_layers=1,2", "seed=range(50)", "data.train_size=64",
    "data.val_size=64", "data.test_size=64", "trainer.max_epochs=2",
]  # fmt: skip
_SLICES = 4


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="slices-"))
    local = Sweep([*_SWEEP, "hydra.sweep.dir=local"], root, root / "local.log")
    assert local.process.wait() == 0
    written = Sweep([*_SWEEP, "hydra.sweep.dir=sliced", "--only-write"], root, root / "written.log")
    assert written.process.wait() == 0
    began = time.perf_counter()
    slices = [
        Sweep(["work", "sliced", "--slice", f"{i}/{_SLICES}", "--slots", "1"], root, root / f"slice-{i}.log")
        for i in range(_SLICES)
    ]
    codes = [slice_.process.wait() for slice_ in slices]
    seconds = time.perf_counter() - began
    report = Sweep(["report", "sliced"], root, root / "report.log")
    assert report.process.wait() == 0
    starts = [line for i in range(_SLICES) for line in (root / f"slice-{i}.log").read_text().splitlines()]
    ended = [line.split()[1] for line in starts if line.startswith("done  ")]
    summaries = [json.loads(content) for content in done_jobs(root / "sliced").values()]
    print(f"exit codes: {codes}; {seconds:.0f} s")
    print(f"jobs done: {len(summaries)} of 200; told of as done: {len(ended)}, different: {len(set(ended))}")
    print(f"resumed: {sum(summary['resumed'] for summary in summaries)}")
    print(
        f"the leaderboard is that of the local sweep: {leaderboard(root / 'local') == leaderboard(root / 'sliced')}"
    )
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
