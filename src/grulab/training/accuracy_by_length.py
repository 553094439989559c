"""Accuracy by sequence length: the ranges of lengths, and the accuracy in each range."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from grulab.tasks.base import Task

_RANGES = 6


def accuracy_by_length(task: Task, outcomes: Sequence[tuple[Tensor, Tensor]]) -> pd.DataFrame:
    """Return the accuracy on the test sequences of each range of lengths.

    The ranges are the same in every run of a task with the same data.

    Args:
        task: gives the range of possible lengths, and whether each is equally likely.
        outcomes: for each test batch the lengths, (batch,) int64 in steps, and whether each sequence was classified
            correctly, (batch,) bool.

    Returns:
        One row for each non-empty range, in order of length, with the columns ``range`` ("5-6", in steps),
        ``accuracy`` and ``sequences`` (their number).
    """
    lengths = torch.cat([lengths for lengths, _ in outcomes]).numpy()
    correct = torch.cat([correct for _, correct in outcomes]).cpu().numpy()
    starts = uniform_starts(*task.length_range) if task.lengths_are_uniform else quantile_starts(lengths)
    longest = task.length_range[1] if task.lengths_are_uniform else int(lengths.max())
    ends = [*(start - 1 for start in starts[1:]), longest]
    table = pd.DataFrame({"place": np.searchsorted(starts, lengths, side="right") - 1, "correct": correct})
    groups = table.groupby("place")["correct"]
    return pd.DataFrame(
        {
            "range": [f"{starts[place]}-{ends[place]}" for place in groups.size().index],
            "accuracy": groups.mean().to_numpy(),
            "sequences": groups.size().to_numpy(),
        }
    )


def uniform_starts(shortest: int, longest: int) -> list[int]:
    """Return the first lengths of at most six ranges of equal width."""
    width = -(-(longest - shortest + 1) // _RANGES)
    return list(range(shortest, longest + 1, width))


def quantile_starts(lengths: NDArray[np.int64]) -> list[int]:
    """Return the first lengths of at most six ranges that hold about equally many sequences.

    Args:
        lengths: (sequences,) int64, in steps.
    """
    # A length belongs to one range, so there are fewer ranges if many sequences have the same length.
    quantiles = np.quantile(lengths, np.arange(_RANGES) / _RANGES, method="lower")
    return sorted(set(quantiles.astype(int).tolist()))
