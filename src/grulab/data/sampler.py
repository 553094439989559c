"""Which sequences stand together in a batch, and in which order the batches come.

A plan is made window by window while it is used: an epoch of a billion sequences begins as fast as one of a thousand
and takes as little memory, and going on in its middle computes nothing of what lies before.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from grulab.tasks import counter_rng

# Sequences are sorted by length within a window of this many batches: long enough that a batch holds little
# padding, short enough that the batches differ from epoch to epoch.
WINDOW = 32

Indices = NDArray[np.int64]
LengthsOf = Callable[[Indices], NDArray[np.int64]]


def training_batches(
    lengths_of: LengthsOf, size: int, batch_size: int, seed: int, epoch: int, done: int = 0
) -> Iterator[Indices]:
    """Yield the batches of one epoch: a pure function of its arguments, the same on every machine.

    Sequences are shuffled, then sorted by length inside windows of 32 batches, so that a batch holds sequences of
    like length, the longest first; then the batches of a window are shuffled. A window is a random subset of the
    sequences already, so shuffling batches beyond their window would add nothing. Every sequence comes exactly once.
    Only the last batch may be smaller than ``batch_size``; its sequences are drawn from all lengths alike.

    Args:
        lengths_of: (sequences,) indices -> (sequences,) int64, their lengths.
        size: how many sequences there are.
        batch_size: sequences in a batch.
        seed: of the run.
        epoch: from 0.
        done: how many batches to leave out at the beginning.

    Yields:
        For each batch its sequences' indices: (batch,) int64.
    """
    full = size // batch_size
    for first in range(done // WINDOW * WINDOW, count_batches(size, batch_size), WINDOW):
        numbers = np.arange(first, min(first + WINDOW, full))
        positions = np.arange(first * batch_size, min((first + WINDOW) * batch_size, size))
        shuffled = counter_rng.permutation(seed, "sequences", epoch, size, positions)
        whole = len(numbers) * batch_size
        batches = _cut(_longest_first(shuffled[:whole], lengths_of), batch_size)
        keys = counter_rng.bits(seed, "batches", f"epoch {epoch}", numbers, 1)[:, 0]
        batches = [batches[place] for place in np.argsort(keys, kind="stable")]
        batches += _cut(_longest_first(shuffled[whole:], lengths_of), batch_size)
        yield from batches[max(done - first, 0) :]


def evaluation_batches(lengths_of: LengthsOf, size: int, batch_size: int) -> Iterator[Indices]:
    """Yield the batches of a whole split, the same every time: the longest first within each window of 32 batches."""
    window = WINDOW * batch_size
    for start in range(0, size, window):
        indices = np.arange(start, min(start + window, size))
        yield from _cut(_longest_first(indices, lengths_of), batch_size)


def count_batches(size: int, batch_size: int) -> int:
    """Return how many batches a plan for ``size`` sequences has."""
    return -(-size // batch_size)


def _longest_first(indices: Indices, lengths_of: LengthsOf) -> Indices:
    """Sort by length, as packing wants it; among equals the order stays."""
    return indices[np.argsort(-lengths_of(indices), kind="stable")]


def _cut(indices: Indices, batch_size: int) -> list[Indices]:
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


class ResumableBatchSampler(Sampler[Indices]):
    """Yields the batches that are left of the epoch the trainer is in.

    The position is asked for when iteration begins. Lightning 2.6.6 tells a sampler its epoch too late after a
    resume when there are workers (pytorch-lightning#21938), so nothing here relies on ``set_epoch``.

    Args:
        plan: (epoch from 0, batches of it already done) -> the batches that are left.
        position: -> (epoch, batches of it already done).
        batches: how many batches a whole epoch has.
    """

    def __init__(
        self, plan: Callable[[int, int], Iterator[Indices]], position: Callable[[], tuple[int, int]], batches: int
    ) -> None:
        self._plan = plan
        self._position = position
        self._batches = batches

    def __iter__(self) -> Iterator[Indices]:
        return self._plan(*self._position())

    def __len__(self) -> int:
        """Return the length of a whole epoch, also inside one: Lightning counts from its beginning."""
        return self._batches
