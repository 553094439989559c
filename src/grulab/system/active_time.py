"""A clock that stands still while this process, and what it watches, is stopped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_stopped_for = 0.0


def active_time() -> float:
    """Return the seconds of the monotonic clock, less those inside :func:`time_stands_still`."""
    return time.monotonic() - _stopped_for


@contextmanager
def time_stands_still() -> Iterator[None]:
    """Take the time that passes in this context out of :func:`active_time`."""
    global _stopped_for
    # By this clock itself, so that a context inside another one counts once.
    began = active_time()
    try:
        yield
    finally:
        _stopped_for += active_time() - began
