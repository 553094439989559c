"""Each epoch has every sequence once, in batches that depend only on seed and epoch."""

import hashlib
import tracemalloc
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from grulab import PaddedBatch, SequenceClassifier, SequenceDataModule
from grulab.config.compose import compose
from grulab.data import datamodule, dataset
from grulab.data.sampler import WINDOW, ResumableBatchSampler, count_batches, evaluation_batches, training_batches
from grulab.models.gru import GRUClassifier
from grulab.tasks.sinusoids import Sinusoids

lengths_and_batch_size = st.tuples(
    st.lists(st.integers(1, 50), min_size=1, max_size=300).map(np.array), st.integers(1, 40)
)
seeds, epochs = st.integers(0, 2**32 - 1), st.integers(0, 50)


def training(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, done: int = 0) -> list[np.ndarray]:
    return list(training_batches(lengths.__getitem__, len(lengths), batch_size, seed, epoch, done))


def evaluation(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return list(evaluation_batches(lengths.__getitem__, len(lengths), batch_size))


@given(lengths_and_batch_size, seeds, epochs)
def test_every_sequence_once_longest_first_and_only_the_last_batch_smaller(
    case: tuple[np.ndarray, int], seed: int, epoch: int
) -> None:
    lengths, batch_size = case
    for plan in (training(lengths, batch_size, seed, epoch), evaluation(lengths, batch_size)):
        assert len(plan) == count_batches(len(lengths), batch_size)
        assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
        assert all(len(batch) == batch_size for batch in plan[:-1])
        assert 1 <= len(plan[-1]) <= batch_size
        assert all((np.diff(lengths[batch]) <= 0).all() for batch in plan)


@given(lengths_and_batch_size, seeds, epochs, st.integers(0, 310))
def test_going_on_in_the_middle_is_the_rest_of_the_plan(
    case: tuple[np.ndarray, int], seed: int, epoch: int, done: int
) -> None:
    lengths, batch_size = case
    whole = training(lengths, batch_size, seed, epoch)
    rest = training(lengths, batch_size, seed, epoch, done)
    assert len(rest) == max(0, len(whole) - done)
    assert all(map(np.array_equal, whole[done:], rest))


def test_the_plan_looks_at_one_window_at_a_time() -> None:
    """Resuming in the middle of ten million batches reads the lengths of the next window only."""
    asked = []

    def lengths_of(indices: np.ndarray) -> np.ndarray:
        asked.append(len(indices))
        return indices % 7

    next(training_batches(lengths_of, 10**8, 10, 0, 0, done=5_000_001))
    next(evaluation_batches(lengths_of, 10**8, 10))
    assert max(asked) == 320
    assert sum(asked) == 640


@given(lengths_and_batch_size, seeds, epochs)
def test_the_plan_is_a_function_of_seed_and_epoch(case: tuple[np.ndarray, int], seed: int, epoch: int) -> None:
    lengths, batch_size = case
    np.random.seed(0)  # noqa: NPY002  (the global generator must not matter)
    first = training(lengths, batch_size, seed, epoch)
    np.random.seed(1)  # noqa: NPY002
    again = training(lengths, batch_size, seed, epoch)
    assert all(map(np.array_equal, first, again))


def test_seeds_and_epochs_give_different_orders() -> None:
    lengths = np.random.default_rng(0).integers(5, 11, 3000)
    plans = {np.concatenate(training(lengths, 32, seed, epoch)).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(plans) == 4
    # The batches have other members, not only another order.
    members = [{frozenset(batch) for batch in training(lengths, 32, 0, epoch)} for epoch in (0, 1)]
    assert len(members[0] & members[1]) < 3


def test_long_and_short_batches_are_mixed_in_every_window() -> None:
    lengths = np.random.default_rng(0).integers(5, 51, 3000)
    longest = [lengths[batch].max() for batch in training(lengths, 32, 0, 0)][:-1]
    windows = [longest[start : start + WINDOW] for start in range(0, len(longest), WINDOW)]
    assert len(windows) == 3
    for window in windows:
        assert window not in (sorted(window), sorted(window, reverse=True))
    # Each window is shuffled differently.
    assert len({tuple(np.argsort(window[:29], kind="stable")) for window in windows}) == 3


def test_the_smaller_last_batch_is_of_all_lengths() -> None:
    """A sequence in a smaller batch weighs more in its step, so the last batch must not always hold the longest."""
    lengths = np.random.default_rng(0).integers(5, 11, 1000)
    seen = {int(length) for epoch in range(20) for length in lengths[training(lengths, 32, 0, epoch)[-1]]}
    assert seen == set(range(5, 11))


def test_the_plan_is_the_same_on_every_machine() -> None:
    plan = training(np.arange(3000) % 7, 32, seed=5, epoch=3)
    digest = hashlib.sha256(np.concatenate(plan).tobytes()).hexdigest()
    assert digest == "76ed10480579e569dc91b5fe8ca99083ffa288ecd3806bfb8139cfc6b2f85858", (
        "the order of batches has changed: results before and after cannot be compared"
    )


def test_buckets_save_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 51, 2000)

    def waste(plan: list[np.ndarray]) -> float:
        steps = sum(len(batch) * lengths[batch].max() for batch in plan)
        return float(1 - lengths.sum() / steps)

    shuffled = np.array_split(np.random.default_rng(1).permutation(2000), 2000 // 32)
    assert waste(training(lengths, 32, 0, 0)) < 0.1 < 0.4 < waste(shuffled)
    assert waste(evaluation(lengths, 32)) < 0.1


def test_padding_is_that_of_an_epoch_also_where_it_is_looked_at_in_part() -> None:
    small = SequenceDataModule(compose(["data.train_size=2000", "data.max_length=50"]).data, seed=0)
    batches = list(small.train_dataloader())
    steps = sum(batch.x.shape[0] * batch.x.shape[1] for batch in batches)
    assert small.padding() == 1 - sum(int(batch.lengths.sum()) for batch in batches) / steps
    large = SequenceDataModule(compose([f"data.train_size={10**9}", "data.max_length=50"]).data, seed=0)
    assert abs(large.padding() - small.padding()) < 0.01


def test_a_batch_holds_its_sequences() -> None:
    module = SequenceDataModule(compose().data, seed=0)
    sequences = module.task.generate(0, "train", np.arange(1000))
    indices = np.array([5, 3, 999, 3])
    batch = module.split("train")[indices]
    assert batch.x.shape == (4, sequences.lengths[indices].max(), 5)
    for row, index in enumerate(indices):
        length = sequences.lengths[index]
        assert batch.lengths[row] == length
        assert batch.y[row] == sequences.classes[index]
        np.testing.assert_array_equal(batch.x[row, :length], sequences.features[index, :length])
        assert (batch.x[row, length:] == 0).all()


def parts(module: SequenceDataModule) -> list[torch.Tensor]:
    """Return every tensor in the batches of one epoch, for all three splits."""
    loaders = [module.train_dataloader(), module.val_dataloader(), module.test_dataloader()]
    tensors = [part for loader in loaders for batch in loader for part in batch]
    module.close()
    return tensors


@pytest.mark.parametrize("task", ["sinusoids", "temporal_order"])
def test_by_index_or_from_memory_with_workers_or_without(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {}
    # Several evaluation batches, although the sequences are short.
    monkeypatch.setattr(datamodule, "_EVALUATION_STEPS", 0)
    overrides = [f"data={task}", "data.train_size=1100", "data.val_size=300"]
    for limit in (dataset.IN_MEMORY, 0):
        monkeypatch.setattr(dataset, "IN_MEMORY", limit)
        for workers in (0, 2):
            module = SequenceDataModule(compose([*overrides, f"data.num_workers={workers}"]).data, seed=3)
            assert module.split("train").in_memory == (limit > 0)
            batches[limit, workers] = parts(module)
    expected = batches.pop((dataset.IN_MEMORY, 0))
    assert len(expected) == 3 * (35 + 2 + 4)
    assert len(batches) == 3
    for found in batches.values():
        assert len(found) == len(expected)
        assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("workers", [0, 2])
def test_fresh_epochs_have_sequences_of_their_own(workers: int) -> None:
    """Epoch e has the sequences from e times the size on, each once; validation and test stay as they are."""
    config = compose(["data.train_size=70", "data.fresh=true", f"data.num_workers={workers}"]).data
    module = SequenceDataModule(config, seed=3)
    seen = []
    for epoch in range(3):
        plan = list(module._training_batches(epoch, 0))
        seen.append(np.concatenate(plan))
        assert sorted(seen[-1]) == list(range(70 * epoch, 70 * epoch + 70))
        assert all(map(np.array_equal, plan[2:], module._training_batches(epoch, 2)))
    module._position = lambda: (2, 0)
    batches = list(module.train_dataloader())
    module.close()
    expected = module.task.generate(config.seed, "train", seen[2])
    assert np.concatenate([batch.y for batch in batches]).tolist() == expected.classes.tolist()
    assert sum(float(batch.x.double().sum()) for batch in batches) == pytest.approx(float(expected.features.sum()))
    for name, is_whole in (("train", False), ("val", True), ("test", True)):
        assert module.split(name).in_memory == is_whole


def test_what_is_fetched_together_is_small() -> None:
    """Small batches are fetched eight at a time, batches of long sequences one at a time."""
    module = SequenceDataModule(compose().data, 0)
    assert (module.train_dataloader().batch_size, module.val_dataloader().batch_size) == (8, 8)
    module = SequenceDataModule(compose(["data.max_length=5000", "data.train_size=10", "data.val_size=10"]).data, 0)
    assert (module.train_dataloader().batch_size, module.val_dataloader().batch_size) == (1, 1)


def test_modules_of_the_same_data_share_the_splits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["data.train_size=77"]).data
    dataset.remember_splits(config)
    with monkeypatch.context() as patch:
        patch.setattr(Sinusoids, "generate", None)
        one, other = (
            SequenceDataModule(compose(["data.train_size=77"]).data, seed).split("train") for seed in (0, 1)
        )
    assert one._whole is other._whole is not None
    assert SequenceDataModule(compose(["data.train_size=78"]).data, 0).split("train")._whole is not one._whole


def test_what_is_remembered_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_remembered", {})
    monkeypatch.setattr(dataset, "_REMEMBERED", 4 * 1000 * 10 * 5 * 4)
    for seed in range(3):
        dataset.remember_splits(compose([f"data.seed={seed}"]).data)
        held = [split.x for split in dataset._remembered.values()]
        assert sum(x.nbytes for x in held) <= dataset._REMEMBERED
    assert len(held) == 4
    # The three splits of the newest data, and one split of the data before.
    assert [name for _, name in dataset._remembered] == ["test", "train", "val", "test"]


def test_any_number_of_sequences_takes_the_same_memory() -> None:
    """Peak memory of setup and of the first two windows of each loader, with a billion sequences in each split."""
    huge = [f"data.{name}_size={10**9}" for name in ("train", "val", "test")]
    module = SequenceDataModule(compose([*huge, "data.max_length=100"]).data, seed=0)
    tracemalloc.start()
    try:
        for stage in ("fit", "test"):
            module.setup(stage)
        loaders = [module.train_dataloader(), module.val_dataloader(), module.test_dataloader()]
        assert [len(loader) for loader in loaders] == [31_250_000, 3_906_250, 3_906_250]
        seen = np.concatenate([batch.lengths for loader in loaders for batch in islice(loader, 2 * WINDOW)])
        module.padding()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen) == 2 * WINDOW * (32 + 256 + 256)
    assert peak < 16 * 2**20


def test_splits_are_different_and_seed_0_is_a_seed() -> None:
    first = {}
    for seed in (0, 1):
        module = SequenceDataModule(compose([f"data.seed={seed}"]).data, seed=0)
        for split in ("train", "val", "test"):
            first[seed, split] = module.split(split)[np.arange(8)].x.numpy().tobytes()
    assert len(set(first.values())) == 6


def test_a_sampler_goes_on_where_the_trainer_is() -> None:
    position = [0, 0]
    sampler = ResumableBatchSampler(
        lambda epoch, done: (np.array([epoch, batch]) for batch in range(done, 4)),
        lambda: (position[0], position[1]),
        4,
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
    """Records every operation that makes the CPU wait for the device; the meta device stands in for it."""

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


@pytest.mark.parametrize("sequences", ["packed", "padded"])
@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step"])
def test_a_step_never_waits_for_the_device(step: str, sequences: str) -> None:
    data = SequenceDataModule(compose().data, seed=0)
    batch = next(iter(data.train_dataloader())).to("meta")
    module = SequenceClassifier(5, 8, 2, 3, bidirectional=True, sequences=sequences).to("meta")
    with Waits() as waits:
        loss = getattr(module, step)(batch, 0)
        if loss is not None:
            loss.backward()
    assert waits.found == []
    # Counter-check: a batch that is not sorted by length copies its order to the device, and that is recorded.
    module.model.sequences = "packed"
    with Waits() as waits:
        module(torch.zeros(2, 3, 5, device="meta"), torch.tensor([1, 3]))
    assert waits.found != []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, whose synchronisations can be counted")
@pytest.mark.parametrize("sequences", ["packed", "padded"])
def test_no_synchronisation_under_cuda(sequences: str) -> None:
    model = GRUClassifier(5, 8, 2, 3, bidirectional=True, dropout=0.1, sequences=sequences).cuda()
    batch = PaddedBatch(torch.zeros(2, 3, 5), torch.tensor([3, 1]), torch.tensor([0, 1])).pin_memory().to("cuda")
    model(batch.x, batch.lengths).sum().backward()  # cuDNN initializes at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(batch.x, batch.lengths).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
