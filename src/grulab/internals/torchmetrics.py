"""Private parts of torchmetrics, read in version 1.9.0."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def count_update(metric: Any) -> None:
    """Count an update that was made without Metric.update, whose wrapper takes ten times as long as a few sums."""
    # Through __dict__, because setting an attribute of an nn.Module first looks for a parameter.
    metric.__dict__["_update_count"] += 1


def set_update_count(metric: Any, count: int) -> None:
    """Set the number of updates of a metric; Metric.compute warns if it is 0."""
    metric.__dict__["_update_count"] = count


@contextmanager
def without_scipy_signal() -> Iterator[None]:
    """Replace scipy.signal by an empty module while torchmetrics is imported.

    torchmetrics/__init__.py imports scipy.signal only to restore a name that SciPy removed (hamming), for some
    versions of another library. The import takes a fifth of the start-up (experiments/throughput/start_up.py
    measures it).
    """
    stand_in = ModuleType("scipy.signal")
    stand_in.hamming = None  # type: ignore[attr-defined]
    # importlib.util.find_spec raises an error for a module without a spec.
    stand_in.__spec__ = ModuleSpec("scipy.signal", None)
    sys.modules.setdefault("scipy.signal", stand_in)
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is stand_in:
            del sys.modules["scipy.signal"]
            vars(sys.modules.get("scipy", stand_in)).pop("signal", None)
