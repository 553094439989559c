"""The default sweep against the same 36 jobs of an ordinary Hydra and Lightning script, in one run.

python -m experiments.sweeps.wall_time
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from grulab.processes import available_cores
from grulab.report.sections import Section, to_markdown

_SWEPT = ["hidden_size=8,16,32", "num_layers=1,2", "bidirectional=false,true", "seed=0,1,2"]
_ORDINARY = [sys.executable, "-m", "experiments.sweeps.ordinary.train", "-m", *_SWEPT]
_GRULAB = [str(Path(sys.executable).with_name("grulab")), "train", "-m", "experiment=architecture"]
COMMANDS = {
    "grulab": _GRULAB,
    "ordinary script, basic launcher": _ORDINARY,
    "ordinary script, joblib launcher": [
        *_ORDINARY,
        "hydra/launcher=joblib",
        f"hydra.launcher.n_jobs={available_cores()}",
    ],
}


def main(repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(repeats):
        for name, command in COMMANDS.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                process = subprocess.run(
                    [*command, f"hydra.sweep.dir={folder}/sweep"], capture_output=True, text=True, check=False
                )
                seconds[name].append(time.perf_counter() - began)
                assert process.returncode == 0, process.stderr[-2000:]
            print(f"{repeat + 1} of {repeats}  {name}  {seconds[name][-1]:.1f} s", flush=True)
    rows = []
    for name, values in seconds.items():
        ratios = [value / own for value, own in zip(values, seconds["grulab"], strict=True)]
        rows.append(
            {
                "what": name,
                "seconds (median)": f"{statistics.median(values):.1f}",
                "range": f"{min(values):.1f} to {max(values):.1f}",
                "times as long as grulab": f"{statistics.median(ratios):.2f}",
            }
        )
    text = (
        f"`python -m experiments.sweeps.wall_time`: 36 jobs of 5 epochs, {available_cores()} cores, start-up "
        f"included, {repeats} times in turn. grulab's time includes its report."
    )
    report = to_markdown("Wall time of the default sweep", [Section("Result", text, pd.DataFrame(rows))])
    Path(__file__).with_name("wall_time.md").write_text(report)
    print(report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args().repeats)
