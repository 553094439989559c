"""What becomes of a process when its parent process ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """End this process when its parent ends for any reason (Linux only), or now if it has ended already.

    Args:
        parent: the process id of the parent, taken before the fork, because the parent may end right after it.
        signum: the signal that this process gets then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, so that it is noticed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
