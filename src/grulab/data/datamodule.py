"""The LightningDataModule: the three splits of a task as DataLoaders of padded batches."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from grulab.config.compose import compose
from grulab.data.batch import PaddedBatch
from grulab.data.dataset import SplitDataset
from grulab.data.sampler import WINDOW, ResumableBatchSampler, count_batches, evaluation_batches, training_batches
from grulab.data.workers import WorkersNotStartedError, why_no_workers
from grulab.field_types import Split
from grulab.internals.lightning import next_epoch_and_batch
from grulab.internals.torch import has_workers, shut_down_workers
from grulab.sequence_files.arrays import keep_arrays
from grulab.system.parent_death import end_with_parent
from grulab.system.signals import blocked_signals
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import build_task

# Evaluation stores no activations, so a batch can be eight times as large as in training, or larger if the sequences
# are short.
_EVALUATION_FACTOR = 8
_EVALUATION_STEPS = 16_384
_PADDING_WINDOWS = 32
# The time to generate a batch of short sequences is mostly fixed; eight batches generated together share it.
_FETCHED_TOGETHER = 8
_FETCHED_VALUES = 1_000_000
_NEEDED_BY: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}


class SequenceDataModule(L.LightningDataModule):
    """DataLoaders of :class:`PaddedBatch` for the three splits of a task.

    The sequences depend on ``config.seed`` only, of a fresh task on the epoch too, and the order of the batches on
    ``seed`` and the epoch. Neither uses a global random generator, so the batches are the same with any number of
    workers.

    Args:
        config: the task, its batch size and the number of workers.
        seed: the seed of the order of the training sequences.
    """

    def __init__(self, config: DataConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.task = build_task(config)
        self._splits: dict[Split, SplitDataset] = {}
        self._loaders: list[_Loader] = []

    @classmethod
    def from_arrays(
        cls,
        sequences: Sequence[NDArray[Any]],
        labels: Sequence[Any],
        *,
        split: Sequence[str] | None = None,
        group: Sequence[Any] | None = None,
        ids: Sequence[Any] | None = None,
        feature_names: Sequence[str] | None = None,
        seed: int = 0,
        overrides: Sequence[str] = (),
    ) -> "SequenceDataModule":
        """Return the data module of sequences in memory.

        They are kept in the cache, from which a run over them can be resumed.

        Args:
            sequences: one array (steps, features) for each sequence.
            labels: the class of each.
            split: "train", "val" or "test" for each; None divides them.
            group: for each what stays together in one split.
            ids: a different name for each; None counts from 1.
            feature_names: one for each feature.
            seed: the seed of the order of the training sequences.
            overrides: changes to conf/data/files.yaml, such as ``["data.scale=robust"]``.

        Raises:
            ConfigError: naming the sequence that is odd.
        """
        given = {"split": split, "group": group, "id": ids, "feature_names": feature_names}
        content = keep_arrays(sequences, labels, {key: part for key, part in given.items() if part is not None})
        config = compose(["data=files", f"data.content={content}", *overrides])
        return cls(config.data, seed)

    def split(self, name: Split) -> SplitDataset:
        """Return a split; a split that fits into memory is generated on the first call."""
        if name not in self._splits:
            self._splits[name] = SplitDataset(self.config, name)
        return self._splits[name]

    def setup(self, stage: str) -> None:
        """Generate the splits of the stage, before any worker process is forked."""
        for name in _NEEDED_BY[stage]:
            self.split(name)

    def train_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the training batches of the trainer's current epoch, shuffled and grouped by length."""
        batches = count_batches(self.task.size("train"), self.config.batch_size)
        return self._loader("train", ResumableBatchSampler(self._training_batches, self._position, batches))

    def val_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the validation batches, longest sequences first."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the test batches, longest sequences first."""
        return self._evaluation_loader("test")

    def test_order(self) -> NDArray[np.int64]:
        """Return the indices of the test sequences in the order of the test batches: (sequences,) int64."""
        split = self.split("test")
        return np.concatenate(list(evaluation_batches(split.lengths_of, len(split), self.evaluation_batch_size())))

    def padding(self) -> float:
        """Return the fraction of padding in the batches of the first training epoch, from 0 to 1.

        A long epoch is measured by its first 32 windows, because all windows are random subsets of the sequences.
        """
        steps, total = 0, 0
        for batch in islice(self._training_batches(0, 0), _PADDING_WINDOWS * WINDOW):
            lengths = self.split("train").lengths_of(batch)
            steps += len(batch) * int(lengths[0])
            total += int(lengths.sum())
        return 1 - total / steps

    def _training_batches(self, epoch: int, done: int) -> Iterator[NDArray[np.int64]]:
        split = self.split("train")
        return training_batches(
            split.lengths_of, len(split), self.config.batch_size, self.seed, epoch, done, self.task.is_fresh
        )

    def _evaluation_loader(self, name: Split) -> DataLoader[PaddedBatch]:
        split, batch_size = self.split(name), self.evaluation_batch_size()
        # Evaluation is never resumed: it starts from the beginning.
        sampler = ResumableBatchSampler(
            lambda epoch, done: evaluation_batches(split.lengths_of, len(split), batch_size),
            lambda: (0, 0),
            count_batches(len(split), batch_size),
        )
        return self._loader(name, sampler)

    def evaluation_batch_size(self) -> int:
        """Return the number of sequences in a batch of a validation or a test."""
        return max(_EVALUATION_FACTOR * self.config.batch_size, _EVALUATION_STEPS // self.task.length_range[1])

    def _loader(self, name: Split, sampler: ResumableBatchSampler) -> DataLoader[PaddedBatch]:
        trainer = self.trainer
        on_cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
        loader = _Loader(
            self.split(name),
            # An item of the dataset is already a batch, so this is the number of batches that are fetched together.
            batch_size=self._fetched_together(name),
            sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
            pin_memory=on_cuda,
            worker_init_fn=partial(_end_with, os.getpid()),
            # Without its own generator, a DataLoader draws from the global generator whenever it is iterated.
            generator=torch.Generator().manual_seed(0),
        )
        self._loaders.append(loader)
        return loader

    def _fetched_together(self, name: Split) -> int:
        """Return the number of batches to fetch together: more than one if they are small."""
        size = self.config.batch_size if name == "train" else self.evaluation_batch_size()
        values = size * self.task.length_range[1] * self.task.num_features
        return max(1, min(_FETCHED_TOGETHER, _FETCHED_VALUES // values))

    def close(self) -> None:
        """End the worker processes of all DataLoaders."""
        while self._loaders:
            self._loaders.pop().close()

    def _position(self) -> tuple[int, int]:
        """Return the trainer's current epoch and the number of its batches that are done."""
        return (0, 0) if self.trainer is None else next_epoch_and_batch(self.trainer)


class _Loader(DataLoader[PaddedBatch]):
    """A DataLoader that fetches several batches together and yields them one by one.

    The workers ignore signals that are sent to the whole process group, because the parent process ends them in
    order. The signals are blocked before a worker is forked, so that it inherits the blocked signals.
    """

    def __len__(self) -> int:
        """Return the number of batches, independent of how many are fetched together."""
        return len(cast(ResumableBatchSampler, self.sampler))

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return chain.from_iterable(super().__iter__())
        return self._from_workers()

    def _from_workers(self) -> Iterator[PaddedBatch]:
        # In a generator, because Lightning hides an error of __iter__ behind one of its own. And before the workers
        # are started, because torch does not clean up after half a start.
        if not has_workers(self) and (problem := why_no_workers(self.num_workers)):
            raise WorkersNotStartedError(problem)
        with blocked_signals():
            batches = super().__iter__()
        yield from chain.from_iterable(batches)

    def close(self) -> None:
        """End the workers, which ignore the SIGTERM that they receive at the interpreter's exit."""
        shut_down_workers(self)


def _end_with(parent: int, worker: int) -> None:
    end_with_parent(parent)


def _as_it_is(batch: Any) -> Any:
    return batch
