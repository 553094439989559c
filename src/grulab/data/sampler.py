"""Group sequences into batches of similar length, and order the batches.

The batches are computed window by window during iteration. So an epoch of a billion sequences starts as fast as an
epoch of a thousand, with as little memory, and a resume in the middle of an epoch skips the windows before it.
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
    lengths_of: LengthsOf, size: int, batch_size: int, seed: int, epoch: int, done: int = 0, is_fresh: bool = False
) -> Iterator[Indices]:
    """Yield the batches of one epoch: a pure function of its arguments, the same on every machine.

    Sequences are shuffled, then sorted by length inside windows of 32 batches, so that a batch holds sequences of
    similar length, the longest first. Then the batches of a window are shuffled. A window is already a random subset
    of the sequences, so shuffling batches across windows would add nothing. Every sequence occurs exactly once. Only
    the last batch may be smaller than ``batch_size``; its sequences are a random sample of all lengths.

    Args:
        lengths_of: (sequences,) indices -> (sequences,) int64, their lengths in steps.
        size: number of sequences.
        batch_size: number of sequences in a batch.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        done: number of batches to skip at the beginning.
        is_fresh: whether an epoch has sequences of its own, which need no shuffling; see :class:`Task`.

    Yields:
        The indices of the sequences of one batch: (batch,) int64.
    """
    full = size // batch_size
    for first in range(done // WINDOW * WINDOW, count_batches(size, batch_size), WINDOW):
        numbers = np.arange(first, min(first + WINDOW, full))
        positions = np.arange(first * batch_size, min((first + WINDOW) * batch_size, size))
        if is_fresh:
            shuffled = epoch * size + positions
        else:
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
    """Return the number of batches for ``size`` sequences."""
    return -(-size // batch_size)


def _longest_first(indices: Indices, lengths_of: LengthsOf) -> Indices:
    """Sort by descending length, as packing requires; the sort is stable."""
    return indices[np.argsort(-lengths_of(indices), kind="stable")]


def _cut(indices: Indices, batch_size: int) -> list[Indices]:
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


class ResumableBatchSampler(Sampler[Indices]):
    """Yields the remaining batches of the trainer's current epoch.

    The sampler reads the position when iteration begins. It does not rely on ``set_epoch``, which Lightning 2.6.6
    calls too late after a resume with workers (pytorch-lightning#21938).

    Args:
        batches_of: (epoch from 0, number of its batches already done) -> the remaining batches.
        position: () -> (epoch, number of its batches already done).
        batches: number of batches in a whole epoch.
    """

    def __init__(
        self,
        batches_of: Callable[[int, int], Iterator[Indices]],
        position: Callable[[], tuple[int, int]],
        batches: int,
    ) -> None:
        self._batches_of = batches_of
        self._position = position
        self._batches = batches

    def __iter__(self) -> Iterator[Indices]:
        return self._batches_of(*self._position())

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch, also inside an epoch: Lightning counts from its start."""
        return self._batches
