"""The LightningDataModule: a task's three splits as loaders of padded batches."""

import os
import signal
from functools import partial
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from grulab.config import DataConfig
from grulab.data.batch import PaddedBatch
from grulab.data.plan import Plan, PlanSampler, evaluation_plan, training_plan
from grulab.processes import end_with
from grulab.signals import SIGNALS
from grulab.tasks import Sequences, Split, build_task

# Without gradients nothing has to be kept, so that much more fits where a training batch does.
_EVALUATION_FACTOR = 8
_NEEDED_BY: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}


class SplitDataset(Dataset[PaddedBatch]):
    """One split in memory; an item is a whole batch, gathered at once.

    Args:
        sequences: the split.
    """

    def __init__(self, sequences: Sequences) -> None:
        self.lengths = sequences.lengths
        self._features = torch.from_numpy(sequences.features)
        self._lengths = torch.from_numpy(sequences.lengths)
        self._classes = torch.from_numpy(sequences.classes)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, indices: NDArray[np.int64]) -> PaddedBatch:
        """Return the batch of these sequences, padded to the longest among them."""
        rows = torch.from_numpy(indices)
        lengths = self._lengths[rows]
        # The cut is a view; only the batch itself is copied.
        x = self._features[:, : int(lengths.max())].index_select(0, rows)
        return PaddedBatch(x, lengths, self._classes[rows])


class SequenceDataModule(L.LightningDataModule):
    """Loaders of :class:`PaddedBatch` for the three splits of a task.

    The sequences depend on ``config.seed`` alone, the order of batches on ``seed`` and the epoch: neither touches,
    or depends on, any global random generator, so 0 and 2 workers give the same batches.

    Args:
        config: the task and its loading.
        seed: of the order in which the training sequences come.
    """

    def __init__(self, config: DataConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.task = build_task(config)
        self._splits: dict[Split, SplitDataset] = {}
        self._loaders: list[_Loader] = []

    def split(self, name: Split) -> SplitDataset:
        """Return a split; it is generated when it is first asked for."""
        if name not in self._splits:
            size = {
                "train": self.config.train_size,
                "val": self.config.val_size,
                "test": self.config.test_size,
            }[name]
            self._splits[name] = SplitDataset(self.task.generate(self.config.seed, name, np.arange(size)))
        return self._splits[name]

    def setup(self, stage: str) -> None:
        """Generate what the stage needs, before any worker process is forked."""
        for name in _NEEDED_BY[stage]:
            self.split(name)

    def train_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the training batches of the trainer's epoch, shuffled by length bucket."""
        lengths = self.split("train").lengths

        def plan(epoch: int) -> Plan:
            return training_plan(lengths, self.config.batch_size, self.seed, epoch)

        batches = -(-len(lengths) // self.config.batch_size)
        return self._loader("train", PlanSampler(plan, self._position, batches))

    def val_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the validation batches, longest sequences first."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[PaddedBatch]:
        """Return the test batches, longest sequences first."""
        return self._evaluation_loader("test")

    def padding(self) -> float:
        """Return which share of the first training epoch's batches is padding."""
        lengths = self.split("train").lengths
        plan = training_plan(lengths, self.config.batch_size, self.seed, 0)
        steps = sum(len(batch) * int(lengths[batch].max()) for batch in plan)
        return 1 - float(lengths.sum()) / steps

    def _evaluation_loader(self, name: Split) -> DataLoader[PaddedBatch]:
        plan = evaluation_plan(self.split(name).lengths, _EVALUATION_FACTOR * self.config.batch_size)
        return self._loader(name, PlanSampler(lambda _: plan, lambda: (0, 0), len(plan)))

    def _loader(self, name: Split, sampler: PlanSampler) -> DataLoader[PaddedBatch]:
        trainer = self.trainer
        on_cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
        loader = _Loader(
            self.split(name),
            # An item is a batch already: no collating.
            batch_size=None,
            sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
            pin_memory=on_cuda,
            worker_init_fn=partial(_end_with, os.getpid()),
            # Without a generator of its own, a loader draws from the global one each time it is iterated.
            generator=torch.Generator().manual_seed(0),
        )
        self._loaders.append(loader)
        return loader

    def close(self) -> None:
        """End the processes that assemble batches."""
        while self._loaders:
            self._loaders.pop().close()

    def _position(self) -> tuple[int, int]:
        """Return the trainer's epoch and how many of its batches are done, from Lightning's own progress."""
        if self.trainer is None:
            return 0, 0
        fit_loop = self.trainer.fit_loop
        epoch = cast(_ProcessedTracker, fit_loop.epoch_progress.current)
        inside = epoch.ready > epoch.processed
        return epoch.processed, fit_loop.epoch_loop.batch_progress.current.ready if inside else 0


class _Loader(DataLoader[PaddedBatch]):
    """A DataLoader whose workers are deaf to the signals that their whole process group gets.

    Their parent ends them in order. The signals are blocked before a worker is born, for it inherits that.
    """

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the workers; at the interpreter's exit nobody would, for they do not hear its SIGTERM."""
        if self.num_workers > 0 and self._iterator is not None:
            self._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._iterator = None


def _end_with(parent: int, worker: int) -> None:
    end_with(parent)


def _as_it_is(batch: Any) -> Any:
    return batch
