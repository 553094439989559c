"""Build and load the compiled kernels, and check whether they can be used.

    python -m grulab.kernels.library

builds them. This module imports neither torch nor the rest of grulab: hatch_build.py uses it before the installation.
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
SOURCES = (_FOLDER / "gru.c", _FOLDER / "gru_simd.h", _FOLDER / "step_simd.h", _FOLDER / "pool.h")
# No -march: the instruction set is selected at run time. No -ffast-math: NaN must stay NaN.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi", "-pthread")
# For x86, GCC 13 splits some multiply-adds in two roundings, which ones depends on the loop around them: a sequence
# would have other bits alone than in a batch.
FUSE_ALWAYS = "--param=avoid-fma-max-bits=0"
REMEDY = "with a C compiler, python -m grulab.kernels.library builds them"


def is_built() -> bool:
    """Return whether the kernels can be used here."""
    return problem() is None


@cache
def problem() -> str | None:
    """Return why the kernels cannot be used here, or None if they can."""
    if not PATH.is_file():
        return "are not built"
    try:
        if load().gru_sources() != _fingerprint().encode():
            return "are built of other sources"
    except (OSError, AttributeError) as error:
        return f"cannot be loaded ({error})"
    return None


@cache
def load(path: Path | None = None) -> ctypes.CDLL:
    """Load the shared library.

    Args:
        path: of the library; None takes the one that is installed.

    Raises:
        OSError: if the file is not a shared library.
        AttributeError: if the library lacks the functions of gru.c.
    """
    kernels = ctypes.CDLL(str(path or PATH))
    kernels.gru_sources.restype = ctypes.c_char_p
    kernels.gru_layer_size.restype = ctypes.c_int64
    kernels.gru_step_size.restype = ctypes.c_int64
    kernels.gru_keeps_gates.argtypes = [ctypes.c_int64] * 3
    return kernels


def build(path: Path = PATH, *flags: str) -> None:
    """Compile the kernels with the C compiler that ``CC`` names, or ``cc``.

    Args:
        path: of the library.
        flags: further ones, such as other values of the constants of gru.c.

    Raises:
        OSError: if the compiler does not exist.
        subprocess.CalledProcessError: if the compilation fails; ``stderr`` says why.
    """
    compiler = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *flags, f'-DGRU_SOURCES="{_fingerprint()}"']
    # A temporary name, because a process may have the old library open, and a failure must leave no partial file.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        command = [*compiler, "-shared", "-fPIC", "-o", str(temporary), str(SOURCES[0])]
        try:
            subprocess.run([*command, FUSE_ALWAYS], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError:
            # A compiler that does not know the option does not split products either.
            subprocess.run(command, check=True, capture_output=True, text=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _fingerprint() -> str:
    """Return a hash of the sources and the flags, to detect a library that was built from older ones."""
    content = b"".join(source.read_bytes() for source in SOURCES) + " ".join([*FLAGS, FUSE_ALWAYS]).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def try_to_build(path: Path = PATH) -> str | None:
    """Build the kernels; return None, or one line that says why the build failed."""
    try:
        build(path)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"the fused kernels were not built: {why[0] if why else error}"
    return None


if __name__ == "__main__":
    if failure := try_to_build():
        sys.exit(failure)
    print(f"built {PATH}")
