"""The compiled kernels: what they are built with, where they are, and whether they can be used.

    python -m grulab.kernels.library

builds them. Alone, without the rest of grulab or torch: hatch_build.py uses it before anything is installed.
"""

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
PATH = _FOLDER / "libgru.so"
SOURCES = (_FOLDER / "gru.c", _FOLDER / "gru_simd.h")
# No -march: which instructions the machine has is found out at run time. No -ffast-math: NaN must stay NaN.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi")
REMEDY = "with a C compiler, python -m grulab.kernels.library builds them"


def is_built() -> bool:
    """Return whether the kernels can be used here."""
    return problem() is None


@cache
def problem() -> str | None:
    """Return why the kernels cannot be used here, or None."""
    if not PATH.is_file():
        return "are not built"
    try:
        if load().gru_sources() != _fingerprint().encode():
            return "are built of other sources"
    except (OSError, AttributeError) as error:
        return f"cannot be loaded ({error})"
    return None


@cache
def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
        OSError: if it is none.
        AttributeError: if it is another one.
    """
    kernels = ctypes.CDLL(str(PATH))
    kernels.gru_sources.restype = ctypes.c_char_p
    kernels.gru_layer_size.restype = ctypes.c_int64
    return kernels


def build(path: Path = PATH) -> None:
    """Compile the kernels with the C compiler that ``CC`` names, or ``cc``.

    Raises:
        OSError: if there is none.
        subprocess.CalledProcessError: if it cannot compile them; ``stderr`` says why.
    """
    compiler = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, f'-DGRU_SOURCES="{_fingerprint()}"']
    # Under another name first: a process may have the old one open, and a failure leaves nothing half done.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        command = [*compiler, "-shared", "-fPIC", "-o", str(temporary), str(SOURCES[0])]
        subprocess.run(command, check=True, capture_output=True, text=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _fingerprint() -> str:
    """Return what the library of these sources is known by: a library may be older than they are."""
    content = b"".join(source.read_bytes() for source in SOURCES) + " ".join(FLAGS).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def try_to_build(path: Path = PATH) -> str | None:
    """Build the kernels; return None, or a line that says why they were not."""
    try:
        build(path)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"the fused kernels were not built: {why[0] if why else error}"
    return None


if __name__ == "__main__":
    sys.exit(try_to_build())
