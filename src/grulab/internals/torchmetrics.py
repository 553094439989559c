"""Private parts of torchmetrics, read in version 1.9.0."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def count_update(metric: Any) -> None:
    """Count an update of a metric that was made without Metric.update, which costs ten times a few sums."""
    # As an attribute of the module, nn.Module would look for a parameter in it.
    metric.__dict__["_update_count"] += 1


def set_update_count(metric: Any, count: int) -> None:
    """Set the number of updates of a metric: without any, Metric.compute warns."""
    metric.__dict__["_update_count"] = count


@contextmanager
def without_scipy_signal() -> Iterator[None]:
    """Let torchmetrics import an empty module in the place of scipy.signal.

    torchmetrics/__init__.py imports it only to give it back a name that SciPy dropped (hamming), for some versions of
    another library. The import takes an eighth of the start-up (experiments/throughput/start_up.py measures it).
    """
    stand_in = ModuleType("scipy.signal")
    stand_in.hamming = None  # type: ignore[attr-defined]
    # importlib.util.find_spec raises for a module without one.
    stand_in.__spec__ = ModuleSpec("scipy.signal", None)
    sys.modules.setdefault("scipy.signal", stand_in)
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is stand_in:
            del sys.modules["scipy.signal"]
            vars(sys.modules.get("scipy", stand_in)).pop("signal", None)
