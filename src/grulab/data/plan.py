"""Which sequences stand together in a batch, and in which order the batches come."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from grulab.tasks import randomness

# Sequences are sorted by length within a window of this many batches: long enough that a batch holds little
# padding, short enough that the batches differ from epoch to epoch.
_WINDOW = 32

Plan = list[NDArray[np.int64]]


def training_plan(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Plan:
    """Return the batches of one epoch: a pure function of its arguments, the same on every machine.

    Sequences are shuffled, then sorted by length inside windows of some batches, so that a batch holds sequences of
    like length, the longest first; then whole batches are shuffled. Every sequence comes exactly once. Only the last
    batch may be smaller than ``batch_size``; its sequences are drawn from all lengths alike.

    Args:
        lengths: (sequences,) int64.
        batch_size: sequences in a batch.
        seed: of the run.
        epoch: from 0.

    Returns:
        For each batch its sequences' indices: (batch,) int64.
    """
    shuffled = randomness.permutation(seed, "sequences", epoch, len(lengths))
    full = len(lengths) // batch_size
    window = batch_size * _WINDOW
    batches: Plan = []
    for start in range(0, full * batch_size, window):
        part = shuffled[start : min(start + window, full * batch_size)]
        batches += _cut(_longest_first(part, lengths), batch_size)
    order = randomness.permutation(seed, "batches", epoch, full)
    rest = shuffled[full * batch_size :]
    return [batches[index] for index in order] + _cut(_longest_first(rest, lengths), batch_size)


def evaluation_plan(lengths: NDArray[np.int64], batch_size: int) -> Plan:
    """Return the batches of a whole split, longest sequences first: the least padding, and the same every time."""
    return _cut(_longest_first(np.arange(len(lengths)), lengths), batch_size)


def _longest_first(indices: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort by length, as packing wants it; among equals the order stays."""
    return indices[np.argsort(-lengths[indices], kind="stable")]


def _cut(indices: NDArray[np.int64], batch_size: int) -> Plan:
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


class PlanSampler(Sampler[NDArray[np.int64]]):
    """Yields the batches that are left of the epoch the trainer is in.

    The position is asked for when iteration begins. Lightning 2.6.6 tells a sampler its epoch too late after a
    resume when there are workers (pytorch-lightning#21938), so nothing here relies on ``set_epoch``.

    Args:
        plan: epoch (from 0) -> its batches.
        position: -> (epoch, batches of it already done).
        batches: how many batches a whole epoch has.
    """

    def __init__(self, plan: Callable[[int], Plan], position: Callable[[], tuple[int, int]], batches: int) -> None:
        self._plan = plan
        self._position = position
        self._batches = batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        epoch, done = self._position()
        return iter(self._plan(epoch)[done:])

    def __len__(self) -> int:
        """Return the length of a whole epoch, also inside one: Lightning counts from its beginning."""
        return self._batches
