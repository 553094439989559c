"""What this process may use of the machine, and how not to outlive another."""

import ctypes
import gc
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_PR_SET_PDEATHSIG = 1
_OBJECTS_BETWEEN_COLLECTIONS = 20_000


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries without the garbage collector, which takes a third of the time and finds nothing.

    What is there at the end is never looked at again, so processes that are forked later go on sharing it; what comes
    later is looked at less often than Python would, for a step makes many objects and hardly a cycle.

    torchmetrics imports scipy.signal, a fifth of the rest, only to give it back a name that SciPy dropped and some
    version of another library wants (torchmetrics/__init__.py); here it finds a module that has the name.
    """
    gc.disable()
    stands_in = ModuleType("scipy.signal")
    stands_in.hamming = None  # type: ignore[attr-defined]
    # For who asks whether it could be imported.
    stands_in.__spec__ = ModuleSpec("scipy.signal", None)
    sys.modules.setdefault("scipy.signal", stands_in)
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is stands_in:
            del sys.modules["scipy.signal"]
            vars(sys.modules.get("scipy", stands_in)).pop("signal", None)
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
        gc.enable()


def end_with(parent: int) -> None:
    """End when the parent process does, however that ends; only Linux can do that, elsewhere this does nothing.

    Args:
        parent: its process id, taken before the fork: it may have ended by now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def available_cores() -> int:
    """Return how many cores this process may use: of its affinity, and of a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        # No such file, or "max": there is no quota.
        return cores
