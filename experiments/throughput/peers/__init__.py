"""Keras 3 on JAX in a separate virtual environment, which is created on first use."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grulab.field_types import SPLITS
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import build_task

_HERE = Path(__file__).parent
_ENVIRONMENT = Path("outputs") / "throughput" / "peers"


def keras(arguments: Sequence[str], data: Path, xla_flags: str | None = None) -> dict[str, Any]:
    """Run keras_jax.py.

    Args:
        arguments: command and options of the script.
        data: file written by :func:`export`.
        xla_flags: replacement for the flags that the script chooses.

    Returns:
        The JSON that the script printed.
    """
    environment = os.environ | ({} if xla_flags is None else {"XLA_FLAGS": xla_flags})
    command, *options = arguments
    words = [str(_python()), str(_HERE / "keras_jax.py"), command, str(data), *options]
    process = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert process.returncode == 0, process.stderr[-2000:]
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def export(config: DataConfig, path: Path) -> None:
    """Write the three splits of a task to a file that a process without grulab can read."""
    task = build_task(config)
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        sequences = task.generate(config.seed, split, np.arange(task.size(split)))
        # Pad all splits to one length, because JAX compiles again for each shape.
        longest = task.length_range[1] - sequences.features.shape[1]
        arrays[f"{split}_x"] = np.pad(sequences.features, ((0, 0), (0, longest), (0, 0)))
        arrays[f"{split}_lengths"], arrays[f"{split}_y"] = sequences.lengths, sequences.classes
    np.savez(path, allow_pickle=False, **arrays)


def _python() -> Path:
    python = _ENVIRONMENT / "bin" / "python"
    done = _ENVIRONMENT / "installed"
    if not done.exists():
        print(f"installing Keras and JAX in {_ENVIRONMENT}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
        requirements = str(_HERE / "requirements.txt")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        done.touch()
    return python.absolute()
