"""Imports of large libraries: in less time, and with fewer threads."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from grulab.internals.torchmetrics import without_scipy_signal

_OBJECTS_BETWEEN_COLLECTIONS = 20_000


@contextmanager
def quick_import() -> Iterator[None]:
    """Import large libraries without the garbage collector, which takes a third of the time and finds nothing.

    The objects that exist at the end are never looked at again, so processes that are forked later go on sharing
    them; later objects are looked at less often than Python would, for a step makes many and hardly a cycle.
    """
    gc.disable()
    try:
        with without_scipy_signal():
            yield
    finally:
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
        gc.enable()


def import_numpy_with_one_thread() -> None:
    """Import NumPy without the threads of its BLAS, which would not survive a fork; runs compute in torch."""
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        # On some machines torch has an OpenBLAS of its own, for which trainer.threads holds.
        del os.environ[name]
