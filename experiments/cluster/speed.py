"""The default sweep on a one-node SLURM and on Ray, against the local launcher and submitit's.

SLURM_ROOT=.slurm python -m experiments.cluster.speed          (.slurm: make test-slurm)
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from experiments.cluster.one_node import ROOT, one_node

_SWEEP = ["train", "-m", "experiment=architecture"]
_TIMES = 3
_SUBMITIT = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.cpus_per_task=1"]


def main() -> None:
    kinds: dict[str, list[str]] = {"local": []}
    if _has_ray():
        kinds["Ray, running"] = ["hydra/launcher=ray", "hydra.launcher.address=auto"]
    root = Path(tempfile.mkdtemp(prefix="speed-"))
    if ROOT in os.environ:
        kinds["SLURM, two tasks"] = ["hydra/launcher=slurm", "hydra.launcher.tasks=2"]
        if find_spec("hydra_plugins.hydra_submitit_launcher"):
            kinds["SLURM, Hydra's submitit"] = _SUBMITIT
        with one_node(root / "cluster") as cluster:
            os.environ |= cluster.environment
            _measure(kinds, root)
    else:
        _measure(kinds, root)
    shutil.rmtree(root, ignore_errors=True)


def _has_ray() -> bool:
    return find_spec("ray") is not None


def _measure(kinds: dict[str, list[str]], root: Path) -> None:
    if _has_ray():
        # A cluster that is up, as it would be.
        ray = [str(Path(sys.executable).with_name("ray"))]
        start = ["start", "--head", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
        subprocess.run([*ray, *start], check=True, capture_output=True)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(_TIMES):
        for name, overrides in kinds.items():
            # Submitit's takes half a minute.
            if number and overrides == _SUBMITIT:
                continue
            seconds[name].append(_seconds(overrides, root, f"{len(seconds[name])}-{name[:5].strip()}"))
    if _has_ray():
        subprocess.run([*ray, "stop"], check=False, capture_output=True)
    alone = median(seconds["local"])
    print("| the default sweep, 36 jobs, with its report | seconds | of local |\n|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {median(found):.1f} | {median(found) / alone:.2f} |")


def _seconds(overrides: list[str], root: Path, folder: str) -> float:
    command = [str(Path(sys.executable).with_name("grulab")), *_SWEEP, *overrides, f"hydra.sweep.dir={folder}"]
    began = time.perf_counter()
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
