"""Names of the files in a run's and a sweep's folder, new folders, and paths as a person would type them."""

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
# Hydra's.
COMPOSED_CONFIG = Path(".hydra", "config.yaml")
# Of the process that writes to the folder.
LOCK = ".owner"
# In the folder of a sweep.
SWEEP = "sweep.json"


def make_unused(folder: Path) -> Path:
    """Make a new folder of this name, or with -2, -3 ... where others have been as quick, and return it."""
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
    """Return a path as a person would type it here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("..") else relative)
