"""Names of folders: readable, safe for every file system, shell and override, and never the same twice."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# Most file systems take 255 bytes; half of that leaves room for what others append.
MAX_BYTES = 120


def job_folder(number: int, overrides: Sequence[str], exclude: Sequence[str] = ()) -> str:
    """Return a sweep job's folder name, such as ``007_hidden_size-16_bidirectional-true_seed-1``.

    The number makes it unique in its sweep, the values readable.

    Args:
        number: of the job, from 0.
        overrides: the job's, as ``key=value``.
        exclude: keys that say nothing about this job, because every job of the sweep has the same.

    Returns:
        At most 120 bytes of letters, digits, ``_``, ``.`` and ``-``.
    """
    pairs = [override.lstrip("+~").partition("=")[::2] for override in overrides]
    pairs = [(key, value) for key, value in pairs if key not in exclude]
    last_parts = Counter(_last_part(key) for key, _ in pairs)
    words = [f"{number:03d}"]
    for key, value in pairs:
        name = _last_part(key) if last_parts[_last_part(key)] == 1 else key
        words.append(f"{_safe(name)}-{_safe(value)}")
    return "_".join(words)[:MAX_BYTES].rstrip("_.-")


def _last_part(key: str) -> str:
    return re.split(r"[./]", key)[-1]


def _safe(text: str) -> str:
    # Hydra writes a swept false as False, and 1e5 as 1e+5, which without its + must not become 1e-5.
    text = text.lower() if text in ("True", "False") else text.replace("+", "")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


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


def shown(path: Path) -> str:
    """Return a path as a person would type it here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("..") else relative)
