"""Sequences of symbols as features."""

import numpy as np
from numpy.typing import NDArray


def one_hot(symbols: NDArray[np.int64], lengths: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return symbols as one-hot features.

    Args:
        symbols: (sequences, steps) from 0; a step after the end of its sequence may be anything.
        lengths: (sequences,), in steps.
        count: number of different symbols.

    Returns:
        (sequences, time, count) float32, zero after the end of a sequence; time is the longest length.
    """
    steps = np.arange(lengths.max(initial=0))
    features = np.zeros((len(symbols), len(steps), count), dtype=np.float32)
    row, step = np.nonzero(steps < lengths[:, None])
    features[row, step, symbols[row, step]] = 1
    return features
