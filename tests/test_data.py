"""Every sequence once an epoch, in batches that depend on seed and epoch alone."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from grulab import PaddedBatch, SequenceClassifier, SequenceDataModule
from grulab.composition import compose
from grulab.data.datamodule import SplitDataset
from grulab.data.plan import PlanSampler, evaluation_plan, training_plan
from grulab.models.gru import GRUClassifier

lengths_and_batch_size = st.tuples(
    st.lists(st.integers(1, 50), min_size=1, max_size=300).map(np.array), st.integers(1, 40)
)


@given(lengths_and_batch_size, st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_every_sequence_once_and_only_the_last_batch_smaller(
    case: tuple[np.ndarray, int], seed: int, epoch: int
) -> None:
    lengths, batch_size = case
    for plan in (training_plan(lengths, batch_size, seed, epoch), evaluation_plan(lengths, batch_size)):
        assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
        assert all(len(batch) == batch_size for batch in plan[:-1])
        assert 1 <= len(plan[-1]) <= batch_size


@given(lengths_and_batch_size, st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_the_plan_is_a_function_of_seed_and_epoch(case: tuple[np.ndarray, int], seed: int, epoch: int) -> None:
    lengths, batch_size = case
    np.random.seed(0)  # noqa: NPY002  (the global generator must not matter)
    first = training_plan(lengths, batch_size, seed, epoch)
    np.random.seed(1)  # noqa: NPY002
    again = training_plan(lengths, batch_size, seed, epoch)
    assert all(map(np.array_equal, first, again))


def test_seeds_and_epochs_give_different_orders() -> None:
    lengths = np.random.default_rng(0).integers(5, 11, 1000)
    plans = {np.concatenate(training_plan(lengths, 32, seed, epoch)).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(plans) == 4
    # Not only the order of batches changes: their members do.
    members = [{frozenset(batch) for batch in training_plan(lengths, 32, 0, epoch)} for epoch in (0, 1)]
    assert len(members[0] & members[1]) < 3


def test_long_and_short_batches_are_mixed() -> None:
    lengths = np.random.default_rng(0).integers(5, 51, 1000)
    longest = [lengths[batch].max() for batch in training_plan(lengths, 32, 0, 0)]
    assert longest[:-1] not in (sorted(longest[:-1]), sorted(longest[:-1], reverse=True))


def test_the_smaller_last_batch_is_of_all_lengths() -> None:
    """It counts more in its step than others do, so it must not always hold the longest sequences."""
    lengths = np.random.default_rng(0).integers(5, 11, 1000)
    seen = {int(length) for epoch in range(20) for length in lengths[training_plan(lengths, 32, 0, epoch)[-1]]}
    assert seen == set(range(5, 11))


@given(lengths_and_batch_size, st.integers(0, 50))
def test_batches_are_longest_first(case: tuple[np.ndarray, int], epoch: int) -> None:
    lengths, batch_size = case
    for batch in training_plan(lengths, batch_size, 0, epoch) + evaluation_plan(lengths, batch_size):
        assert (np.diff(lengths[batch]) <= 0).all()


def test_the_plan_is_the_same_on_every_machine() -> None:
    plan = training_plan(np.arange(1000) % 7, 32, seed=5, epoch=3)
    digest = hashlib.sha256(np.concatenate(plan).tobytes()).hexdigest()
    assert digest == "55908c743d5f2e1dfb8bfa87242b89af3560ed4028cc1b067cd59c313a1e2763", (
        "the order of batches has changed: results before and after cannot be compared"
    )


def test_buckets_save_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 51, 2000)

    def waste(plan: list[np.ndarray]) -> float:
        steps = sum(len(batch) * lengths[batch].max() for batch in plan)
        return float(1 - lengths.sum() / steps)

    shuffled = np.array_split(np.random.default_rng(1).permutation(2000), 2000 // 32)
    assert waste(training_plan(lengths, 32, 0, 0)) < 0.1 < 0.4 < waste(shuffled)


def test_a_batch_holds_its_sequences() -> None:
    module = SequenceDataModule(compose().data, seed=0)
    sequences = module.task.generate(0, "train", np.arange(1000))
    indices = np.array([5, 3, 999, 3])
    batch = SplitDataset(sequences)[indices]
    assert batch.x.shape == (4, sequences.lengths[indices].max(), 5)
    for row, index in enumerate(indices):
        length = sequences.lengths[index]
        assert batch.lengths[row] == length
        assert batch.y[row] == sequences.classes[index]
        np.testing.assert_array_equal(batch.x[row, :length], sequences.features[index, :length])
        assert (batch.x[row, length:] == 0).all()


def test_splits_are_different_and_seed_0_is_a_seed() -> None:
    first = {}
    for seed in (0, 1):
        module = SequenceDataModule(compose([f"data.seed={seed}"]).data, seed=0)
        for split in ("train", "val", "test"):
            first[seed, split] = module.split(split)[np.arange(8)].x.numpy().tobytes()
    assert len(set(first.values())) == 6


def test_workers_change_nothing() -> None:
    batches = {}
    for workers in (0, 2):
        module = SequenceDataModule(compose([f"data.num_workers={workers}", "data.train_size=65"]).data, seed=3)
        batches[workers] = [part for batch in module.train_dataloader() for part in batch]
    assert len(batches[0]) == len(batches[2]) == 9
    assert all(map(torch.equal, batches[0], batches[2]))


def test_a_sampler_goes_on_where_the_trainer_is() -> None:
    position = [0, 0]
    sampler = PlanSampler(
        lambda epoch: [np.array([epoch, batch]) for batch in range(4)], lambda: (position[0], position[1]), 4
    )
    assert [tuple(batch) for batch in sampler] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    position[:] = [7, 3]
    assert [tuple(batch) for batch in sampler] == [(7, 3)]
    assert len(sampler) == 4


def test_lengths_never_leave_the_cpu() -> None:
    batch = PaddedBatch(torch.zeros(2, 3, 5), torch.tensor([3, 1]), torch.tensor([0, 1]))
    moved = batch.to("meta")
    assert moved.x.is_meta
    assert moved.y.is_meta
    assert moved.lengths is batch.lengths
    # Lightning moves batches with the same method.
    from lightning.pytorch.utilities import move_data_to_device

    assert move_data_to_device(batch, torch.device("meta")).lengths is batch.lengths


class Waits(TorchDispatchMode):
    """Notes every operation that makes the processor wait for a device (played by meta, which has no values)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        crosses = len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1
        if (crosses and "copy" in str(func)) or "_local_scalar_dense" in str(func):
            on_device = any(tensor.is_meta for tensor in tensors)
            if on_device and not (kwargs or {}).get("non_blocking"):
                self.found.append(str(func))
        return result


@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step"])
def test_a_step_never_waits_for_the_device(step: str) -> None:
    data = SequenceDataModule(compose().data, seed=0)
    batch = next(iter(data.train_dataloader())).to("meta")
    module = SequenceClassifier(5, 8, 2, 3, bidirectional=True).to("meta")
    with Waits() as waits:
        loss = getattr(module, step)(batch, 0)
        if loss is not None:
            loss.backward()
    assert waits.found == []
    # The check sees what it is for: a batch in another order sends that order.
    with Waits() as waits:
        module(torch.zeros(2, 3, 5, device="meta"), torch.tensor([1, 3]))
    assert waits.found != []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, whose synchronisations can be counted")
def test_no_synchronisation_under_cuda() -> None:
    model = GRUClassifier(5, 8, 2, 3, bidirectional=True).cuda()
    batch = PaddedBatch(torch.zeros(2, 3, 5), torch.tensor([3, 1]), torch.tensor([0, 1])).pin_memory().to("cuda")
    model(batch.x, batch.lengths).sum().backward()  # cuDNN sets itself up once
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(batch.x, batch.lengths).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
