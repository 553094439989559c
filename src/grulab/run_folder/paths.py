"""The names of the files in the folders of runs and sweeps, new folders, and paths for display."""

import os
import shlex
from pathlib import Path

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
RUN_LOG = "run.log"
# Written by Hydra.
COMPOSED_CONFIG = Path(".hydra", "config.yaml")
# The lock file; it names the process that writes to the folder.
LOCK = ".owner"
# In the folder of a sweep.
SWEEP = "sweep.json"


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
    return shlex.quote(str(path) if relative.startswith("..") else relative)
