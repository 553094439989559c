"""Import large libraries in less time and with fewer threads."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from grulab.internals.matplotlib import import_without_local_settings
from grulab.internals.torchmetrics import without_scipy_signal
from grulab.system.signals import delayed_signals

_OBJECTS_BETWEEN_COLLECTIONS = 20_000
# A command that waits for other machines imports in a thread meanwhile.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def quick_import() -> Iterator[None]:
    """Disable the garbage collector during imports: it takes a third of the time and finds nothing.

    Signals to stop wait until the imports are done: the exception of their handler, raised in a native module that is
    being initialized, would become that module's ImportError.

    At the end all existing objects are frozen (``gc.freeze``), so that forked processes keep sharing them, unless
    nothing was imported: what a run has left would never be freed. From then on collections are rarer than Python's
    default, because a step creates many objects and hardly any cycles.
    """
    with _ONE_AT_A_TIME, delayed_signals():
        known = len(sys.modules)
        gc.disable()
        try:
            import_without_local_settings()
            with without_scipy_signal():
                yield
        finally:
            if len(sys.modules) > known:
                gc.freeze()
            gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
            gc.enable()


def import_numpy_with_one_thread() -> None:
    """Import NumPy without the threads of its BLAS: they would not survive a fork, and runs compute in torch."""
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        # On some machines torch has its own OpenBLAS, whose number of threads is trainer.threads.
        del os.environ[name]
