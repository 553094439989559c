"""The names of the files in the folders of runs and sweeps, new folders, and paths for display."""

import os
import shlex
from pathlib import Path

# Where runs and sweeps are, if the command does not say it.
OUTPUTS = Path("outputs")
CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
# The previous last.ckpt: if the disk damages last.ckpt, this is the newest good checkpoint.
PREVIOUS = "last-previous.ckpt"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
PREDICTIONS = "predictions.csv"
TENSORBOARD = "tensorboard"
RUN_LOG = "run.log"
# Written by Hydra.
COMPOSED_CONFIG = Path(".hydra", "config.yaml")
# The lock file; it names the process that writes to the folder.
LOCK = ".owner"
# In the folder of a sweep.
SWEEP = "sweep.json"
MULTIRUN = "multirun.yaml"
FIGURES, MEANS = "figures", "means"
# Of a sweep on SLURM: its arrays, the batch script, and the logs of the tasks.
SLURM, SLURM_SCRIPT, SLURM_LOGS = "slurm.json", "slurm.sh", "slurm"
# The logs of the tasks of a sweep on Ray.
RAY_LOGS = "ray"


def written_files(folder: Path) -> list[Path]:
    """Return the files that grulab and Hydra write in the folder of a run or a sweep, whether they exist or not."""
    names = (SUMMARY, METRICS, PREDICTIONS, RUN_LOG, LOCK, SWEEP, MULTIRUN, SLURM, SLURM_SCRIPT)
    of_hydra = [folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")]
    checkpoints = [folder / CHECKPOINTS / name for name in (BEST, LAST, PREVIOUS)]
    events = (folder / TENSORBOARD).glob("events.out.tfevents.*")
    return [*(folder / name for name in names), *of_hydra, *checkpoints, *events]


def written_folders(folder: Path) -> list[Path]:
    """Return the folders that grulab and Hydra make in the folder of a run, whether they exist or not."""
    return [folder / name for name in (CHECKPOINTS, TENSORBOARD, ".hydra", SLURM_LOGS, RAY_LOGS)]


def make_unused(folder: Path) -> Path:
    """Create a new folder with this name, or with -2, -3 ... appended if it exists, and return its path."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate


def display_path(path: Path) -> str:
    """Return a path quoted for the shell, relative to the working directory if it lies inside."""
    relative = os.path.relpath(path)
    shown = str(path) if relative.startswith("..") else relative
    # A command would read -y as a flag.
    return shlex.quote(f"./{shown}" if shown.startswith("-") else shown)
