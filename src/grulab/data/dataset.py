"""A task's splits as batches: kept in memory where they are small, made anew for each batch where they are not."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from grulab.data.batch import PaddedBatch
from grulab.field_types import SPLITS, Split
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import build_task

# A split whose padded features need more bytes than this is made by index: it takes no memory, whatever its size.
IN_MEMORY = 64 * 2**20
# How many bytes of features this process remembers, for all its data modules and the processes forked from it.
_REMEMBERED = 256 * 2**20


class SplitDataset(Dataset[PaddedBatch]):
    """One split; an item is a whole batch, gathered or made at once. Both ways give the same batches.

    Args:
        config: the task and how large its splits are.
        name: "train", "val" or "test".

    Attributes:
        in_memory: whether its batches are gathered from memory.
    """

    def __init__(self, config: DataConfig, name: Split) -> None:
        self._task = build_task(config)
        self._seed = config.seed
        self._name: Split = name
        self._size = self._task.size(name)
        self._whole = _whole_split(config, name)
        self.in_memory = self._whole is not None

    def __len__(self) -> int:
        return self._size

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many steps these sequences have: (sequences,) int64."""
        if self._whole is not None:
            return np.asarray(self._whole.lengths)[indices]
        return self._task.lengths(self._seed, self._name, indices)

    def __getitem__(self, indices: NDArray[np.int64]) -> PaddedBatch:
        """Return the batch of these sequences, padded to the longest among them."""
        return self.__getitems__([indices])[0]

    def __getitems__(self, batches: list[NDArray[np.int64]]) -> list[PaddedBatch]:
        """Return several batches; to make them together is faster than one by one."""
        if self._whole is not None:
            return [self._whole.take(torch.from_numpy(indices)) for indices in batches]
        together = PaddedBatch.of(self._task.generate(self._seed, self._name, np.concatenate(batches)))
        ends = np.cumsum([len(indices) for indices in batches])
        return [together.take(torch.arange(end - len(part), end)) for part, end in zip(batches, ends, strict=True)]


def remember_splits(config: DataConfig) -> None:
    """Generate the splits that fit into memory, for every later :class:`SplitDataset` of the same configuration.

    Call it before processes are forked: they share the memory.
    """
    for name in SPLITS:
        _whole_split(config, name)


# The splits in memory, each as one batch, the oldest first.
_remembered: dict[tuple[str, Split], PaddedBatch] = {}


def _whole_split(config: DataConfig, name: Split) -> PaddedBatch | None:
    """Return a whole split, the same object each time while it is remembered; None if it is too large."""
    task = build_task(config)
    size = task.size(name)
    if size * task.length_range[1] * task.num_features * np.dtype(np.float32).itemsize > IN_MEMORY:
        return None
    key = (repr(config), name)
    if key not in _remembered:
        whole = PaddedBatch.of(task.generate(config.seed, name, np.arange(size)))
        while _remembered and sum(split.x.nbytes for split in (whole, *_remembered.values())) > _REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = whole
    return _remembered[key]
