"""The compiled kernels: what they are built with, and where they are.

Alone, without the rest of grulab or torch: hatch_build.py uses it before anything is installed.
"""

import os
import shlex
import subprocess
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
PATH = _FOLDER / "libgru.so"
SOURCE = _FOLDER / "gru.c"
# No -march: which instructions the machine has is found out at run time. No -ffast-math: NaN must stay NaN.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi")


REMEDY = (
    "the fused kernels were not built, for want of a C compiler when grulab was installed; install it again with one"
)


@cache
def is_built() -> bool:
    """Return whether the kernels can be used here."""
    return PATH.is_file()


def build(path: Path = PATH) -> None:
    """Compile the kernels with the C compiler that ``CC`` names, or ``cc``.

    Raises:
        OSError: if there is none.
        subprocess.CalledProcessError: if it cannot compile them; ``stderr`` says why.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    # Under another name first: a process may have the old one open, and a failure leaves nothing half done.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        command = [*compiler, *FLAGS, "-shared", "-fPIC", "-o", str(temporary), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
