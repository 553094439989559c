"""End a child process when its parent process ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


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
