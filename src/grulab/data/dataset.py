"""The splits of a task as batches: small splits are kept in memory, large ones are generated batch by batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from grulab.data.batch import PaddedBatch
from grulab.field_types import SPLITS, Split
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import build_task

# A split whose padded features need more bytes than this is generated batch by batch and not kept in memory.
IN_MEMORY = 64 * 2**20
# Limit of this process's cache of splits, in bytes of features; all data modules and forked processes share it.
_REMEMBERED = 256 * 2**20


class SplitDataset(Dataset[PaddedBatch]):
    """One split, whose items are whole batches: gathered from memory or generated, with the same result.

    Args:
        config: the task and the sizes of its splits.
        name: "train", "val" or "test".

    Attributes:
        in_memory: whether the batches are gathered from memory.
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
        """Return the lengths of the sequences with these indices, in steps: (sequences,) int64."""
        if self._whole is not None:
            return np.asarray(self._whole.lengths)[indices]
        return self._task.lengths(self._seed, self._name, indices)

    def __getitem__(self, indices: NDArray[np.int64]) -> PaddedBatch:
        """Return the sequences with these indices as a batch, padded to the longest of them."""
        return self.__getitems__([indices])[0]

    def __getitems__(self, batches: list[NDArray[np.int64]]) -> list[PaddedBatch]:
        """Return several batches; generating them together is faster than one by one."""
        if self._whole is not None:
            return [self._whole.take(torch.from_numpy(indices)) for indices in batches]
        together = PaddedBatch.of(self._task.generate(self._seed, self._name, np.concatenate(batches)))
        ends = np.cumsum([len(indices) for indices in batches])
        return [together.take(torch.arange(end - len(part), end)) for part, end in zip(batches, ends, strict=True)]


def remember_splits(config: DataConfig) -> None:
    """Generate and cache the splits that fit into memory, for later :class:`SplitDataset` objects of this config.

    Call it before processes are forked, so that they share the memory.
    """
    for name in SPLITS:
        _whole_split(config, name)


# The cached splits, each as one batch, the oldest first.
_remembered: dict[tuple[str, Split], PaddedBatch] = {}


def _whole_split(config: DataConfig, name: Split) -> PaddedBatch | None:
    """Return a whole split, from the cache if it is there; None if it is too large, or another one in each epoch."""
    task = build_task(config)
    size = task.size(name)
    if name == "train" and task.is_fresh:
        return None
    if size * task.length_range[1] * task.num_features * np.dtype(np.float32).itemsize > IN_MEMORY:
        return None
    key = (repr(config), name)
    if key not in _remembered:
        whole = PaddedBatch.of(task.generate(config.seed, name, np.arange(size)))
        while _remembered and sum(split.x.nbytes for split in (whole, *_remembered.values())) > _REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = whole
    return _remembered[key]
