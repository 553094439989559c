"""Folder names for the jobs of a sweep: readable, unique, and safe in every file system, shell and override."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from grulab.config.overrides import split_override

# Most file systems allow 255 bytes; half of that leaves room for suffixes that other programs append.
MAX_BYTES = 120


def job_folder(number: int, overrides: Sequence[str], exclude: Sequence[str] = ()) -> str:
    """Return the folder name of a sweep's job, such as ``007_hidden_size-16_bidirectional-true_seed-1``.

    The number makes the name unique in the sweep, and the values make it readable.

    Args:
        number: number of the job, from 0.
        overrides: overrides of the job, as ``key=value``.
        exclude: keys to leave out, because they have the same value in every job of the sweep.

    Returns:
        At most 120 bytes of letters, digits, ``_``, ``.`` and ``-``.
    """
    pairs = [(key, value) for key, value in map(split_override, overrides) if key not in exclude]
    last_parts = Counter(_last_part(key) for key, _ in pairs)
    words = [f"{number:03d}"]
    for key, value in pairs:
        name = _last_part(key) if last_parts[_last_part(key)] == 1 else key
        words.append(f"{_safe(name)}-{_safe(value)}")
    return "_".join(words)[:MAX_BYTES].rstrip("_.-")


def is_inside(name: str) -> bool:
    """Return whether a job's folder of this name lies in the folder of its sweep."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "/" not in parts and ".." not in parts


def _last_part(key: str) -> str:
    return re.split(r"[./]", key)[-1]


def _safe(text: str) -> str:
    # Hydra writes a swept false as False, and 1e5 as 1e+5; the + is removed, since replacing it would make 1e-5.
    text = text.lower() if text in ("True", "False") else text.replace("+", "")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


def _resolve_job_folder(number: Any, overrides: Any, exclude: Any) -> str:
    # The number of a job is not known before the launch.
    return job_folder(number, overrides, exclude) if isinstance(number, int) else "job"


# conf/config.yaml uses this resolver in hydra.sweep.subdir.
OmegaConf.register_new_resolver("grulab_job_folder", _resolve_job_folder, replace=True)
