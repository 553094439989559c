"""A child process that ends when its parent does."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """End when the parent process does, however that ends. Linux alone can do that; elsewhere this does nothing.

    Args:
        parent: its process id, taken before the fork: it may have ended by now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
