"""What there is to learn: one generator a file. A task is added here, in config/schema.py and in conf/data/."""

from grulab.config.schema import DataConfig, SinusoidsConfig, Split, TemporalOrderConfig
from grulab.tasks.base import Sequences, Task
from grulab.tasks.sinusoids import Sinusoids
from grulab.tasks.temporal_order import TemporalOrder

__all__ = ["Sequences", "Sinusoids", "Split", "Task", "TemporalOrder", "build_task"]


_BUILT: dict[str, Task] = {}


def build_task(config: DataConfig) -> Task:
    """Return the task that the configuration describes; the same one each time, so that it knows its ceiling."""
    key = repr(config)
    if key not in _BUILT:
        _BUILT[key] = _build(config)
    return _BUILT[key]


def _build(config: DataConfig) -> Task:
    match config:
        case SinusoidsConfig():
            return Sinusoids(config)
        case TemporalOrderConfig():
            return TemporalOrder(config)
        case _:
            raise AssertionError(f"no task for {type(config).__name__}")
