"""Private parts of matplotlib, read in version 3.10."""

import os
import sys
from pathlib import Path


def import_without_local_settings() -> None:
    """Import matplotlib now if the current folder has a ``matplotlibrc``, so that it is not read.

    The folder may be somebody else's, and settings can have LaTeX read files; a FIFO of that name would never end.
    """
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(Path(__file__).parent)
        import matplotlib  # noqa: F401
    finally:
        os.fchdir(here)
        os.close(here)
