"""Tasks generate the specified sequences, the same on every machine, and their chance and ceiling are correct."""

import hashlib
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from grulab.config.compose import compose
from grulab.field_types import Split
from grulab.tasks import counter_rng
from grulab.tasks.base import Sequences, Task
from grulab.tasks.registry import build_task
from grulab.tasks.sinusoids import Sinusoids
from grulab.tasks.temporal_order import LEVELS, SYMBOLS, TemporalOrder
from tests.conftest import GENERATED

EVERY_TASK = [
    *((f"data={name}",) for name in GENERATED),
    (
        "data=sinusoids",
        "data.max_length=40",
        "data.min_length=40",
        "data.frequencies=[0,0.5]",
        "data.num_features=1",
    ),
    *(("data=temporal_order", f"data.variant={v}", f"data.level={level}") for v in ("6a", "6b") for level in LEVELS),
]


def task_of(*overrides: str) -> Task:
    return build_task(compose(overrides).data)


@pytest.mark.parametrize("overrides", EVERY_TASK, ids=" ".join)
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    split=st.sampled_from(["train", "val", "test"]),
    indices=st.lists(st.integers(0, 10**7), min_size=1, max_size=9),
)
def test_a_sequence_depends_on_its_index_alone(
    overrides: tuple[str, ...], seed: int, split: Split, indices: list[int]
) -> None:
    task = task_of(*overrides)
    together = task.generate(seed, split, np.array(indices))
    np.testing.assert_array_equal(task.lengths(seed, split, np.array(indices)), together.lengths)
    assert together.features.dtype == np.float32
    assert together.features.shape == (len(indices), together.lengths.max(), task.num_features)
    assert ((together.classes >= 0) & (together.classes < task.num_classes)).all()
    for row, index in enumerate(indices):
        alone = task.generate(seed, split, np.array([index]))
        length = alone.lengths[0]
        assert together.lengths[row] == length
        assert together.classes[row] == alone.classes[0]
        np.testing.assert_array_equal(together.features[row, :length], alone.features[0])
        assert (together.features[row, length:] == 0).all()


@pytest.mark.parametrize("overrides", EVERY_TASK[: len(GENERATED) + 1], ids=" ".join)
def test_seeds_and_splits_are_different_worlds(overrides: tuple[str, ...]) -> None:
    task = task_of(*overrides)
    worlds = [
        task.generate(seed, split, np.arange(50)).features[:, :5].tobytes()
        for seed in (0, 1, 2**32 - 1)
        for split in ("train", "val", "test")
    ]
    assert len(set(worlds)) == len(worlds)


@pytest.mark.parametrize(
    ("overrides", "digest"),
    [
        (("data=sinusoids",), "f10365c9b23897cf6846af556594d71629748275825da3ac5d0bd5a01dae4148"),
        (("data=hidden_markov",), "527aa436fe2ebaf417e90fb12d185933caeeb53e02cc318842a0681a39b96270"),
        (("data=temporal_order",), "9fec2007381bc9816c8e6622948f91d6b1b7e4ebb4d4a14924a9aab1a1dc8020"),
        (("data=keep",), "05fbad460d1854f353b64108e6ea14edc7f5c830702efedc8952314fda4f0f03"),
        (("data=slots", "data.query=both"), "ede0ccfcb7b183ae174bf8519ec2dbe3b55f3282e0ad08d510d4f5bfce0552ce"),
        (("data=step_xor",), "5d38f2dfd3d2fb72e530934e7f4ad13dac533ff68f2694b2152e40eff6f3a190"),
        (("data=word",), "c7fd4c32f49eb2ecb009139a52c5098b5bc23b75934029ce54e455579525f41e"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_same_bits_on_every_machine(overrides: tuple[str, ...], digest: str) -> None:
    sequences = task_of(*overrides).generate(0, "train", np.arange(1000))
    found = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in sequences)).hexdigest()
    assert found == digest, "the data have changed: results before and after cannot be compared"


def test_elementary_functions_are_accurate() -> None:
    generator = np.random.default_rng(0)
    p = np.concatenate([generator.random(5000), 10.0 ** -np.arange(1, 16), 1 - 10.0 ** -np.arange(1, 15)])
    quantiles = np.array([statistics.NormalDist().inv_cdf(value) for value in p])
    np.testing.assert_allclose(counter_rng.normal_quantile(p), quantiles, rtol=1e-14, atol=1e-15)
    turns = generator.uniform(-0.5, 0.5, 5000)
    np.testing.assert_allclose(counter_rng.sine(turns), np.sin(2 * math.pi * turns), rtol=0, atol=1e-15)
    np.testing.assert_allclose(counter_rng.sine(turns + 17), counter_rng.sine(turns), rtol=0, atol=1e-13)
    x = np.exp(generator.normal(0, 20, 5000))
    np.testing.assert_allclose(counter_rng.logarithm(x), np.log(x), rtol=1e-14)


def test_draws_have_the_moments_they_should() -> None:
    z = counter_rng.normal(0, "train", "noise", np.arange(1000), 1000)
    # Standard errors over a million draws: 0.001, 0.0014, 0.0024 and 0.0098.
    assert abs(z.mean()) < 0.005
    assert abs((z**2).mean() - 1) < 0.007
    assert abs((z**3).mean()) < 0.015
    assert abs((z**4).mean() - 3) < 0.05
    for shifted in (z[1:] * z[:-1], z[:, 1:] * z[:, :-1]):
        assert abs(shifted.mean()) < 0.005
    dice = counter_rng.integers(1, 6, 0, "train", "dice", np.arange(60_000), 1)
    counts = np.bincount(dice[:, 0], minlength=7)
    assert counts[0] == 0
    assert (abs(counts[1:] - 10_000) < 500).all()


def order(seed: int, epoch: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return counter_rng.permutation(seed, "sequences", epoch, size, np.arange(size))


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(1, 3000), st.data())
def test_a_permutation_is_one_and_can_be_had_in_parts(seed: int, epoch: int, size: int, data: st.DataObject) -> None:
    whole = order(seed, epoch, size)
    assert sorted(whole) == list(range(size))
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    part = counter_rng.permutation(seed, "sequences", epoch, size, positions)
    np.testing.assert_array_equal(part, whole[positions])


def test_every_small_size_has_its_permutations() -> None:
    for size in range(1, 600):
        assert sorted(order(0, 0, size)) == list(range(size))


@pytest.mark.parametrize("size", [5, 33])
def test_permutations_are_uniform(size: int) -> None:
    """Chi-square tests over many permutations: the value at each position, and the step between the first two."""
    orders = np.array([order(seed, epoch, size) for seed in range(20) for epoch in range(100)])
    places = np.array([np.bincount(column, minlength=size) for column in orders.T])
    expected = len(orders) / size
    assert_plausible(((places - expected) ** 2 / expected).sum(), (size - 1) ** 2)
    steps = np.bincount((orders[:, 1] - orders[:, 0]) % size, minlength=size)
    expected = len(orders) / (size - 1)
    assert steps[0] == 0
    assert_plausible(((steps[1:] - expected) ** 2 / expected).sum(), size - 2)


def assert_plausible(statistic: float, freedom: int) -> None:
    """A chi-square statistic has mean ``freedom`` and standard deviation ``sqrt(2 * freedom)``."""
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_neighbours_in_a_large_permutation_are_strangers() -> None:
    size = 1_000_003
    for epoch in range(5):
        where = np.arange(20_000) + 37 * epoch
        drawn = counter_rng.permutation(1, "sequences", epoch, size, where) / size
        # Standard errors: 0.002 for the mean and 0.007 for correlations.
        assert abs(drawn.mean() - 0.5) < 0.01
        for lag in (1, 2, 32):
            assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 0.035
        assert abs(np.corrcoef(where, drawn)[0, 1]) < 0.035
        after = counter_rng.permutation(1, "sequences", epoch + 1, size, where) / size
        assert abs(np.corrcoef(drawn, after)[0, 1]) < 0.035


def test_the_largest_size_has_a_permutation() -> None:
    positions = np.concatenate([np.arange(1000), np.arange(10**9 - 1000, 10**9)])
    drawn = counter_rng.permutation(0, "sequences", 0, 10**9, positions)
    assert len(set(drawn.tolist())) == 2000
    assert drawn.min() >= 0
    assert drawn.max() < 10**9


def statistics_without_order(sequences: Sequences) -> np.ndarray[Any, Any]:
    """Return each feature's mean and standard deviation over the valid steps."""
    rows = [x[:length] for x, length in zip(sequences.features, sequences.lengths, strict=True)]
    return np.array([np.concatenate([row.mean(0), row.std(0)]) for row in rows])


def test_sinusoids_need_order_and_can_be_solved() -> None:
    task = task_of("data=sinusoids")
    assert isinstance(task, Sinusoids)
    learn, judge = task.generate(0, "train", np.arange(8000)), task.generate(0, "test", np.arange(8000))
    order_free = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    order_free.fit(statistics_without_order(learn), learn.classes)
    assert order_free.score(statistics_without_order(judge), judge.classes) <= 0.50
    assert task.ceiling() >= 0.97
    # The best possible classifier reaches the computed ceiling.
    answers = task.posterior(judge.features, judge.lengths).argmax(1)
    assert abs((answers == judge.classes).mean() - task.ceiling()) < 0.003


def test_the_ceiling_of_sinusoids_agrees_with_a_slow_one() -> None:
    """The likelihood by brute force: a fine grid of phases, one sequence, feature and class at a time."""
    task = task_of("data=sinusoids", "data.noise=1.2", "data.num_features=2")
    assert isinstance(task, Sinusoids)
    sample = task.generate(3, "val", np.arange(40))
    phases = np.arange(2000) / 2000
    expected = np.ones((40, 3))
    for row, (x, length) in enumerate(zip(sample.features, sample.lengths, strict=True)):
        for index, frequency in enumerate(task.config.frequencies):
            for feature in range(2):
                waves = np.sin(2 * np.pi * (frequency * np.arange(length)[:, None] + phases))
                density = statistics.NormalDist(0, 1.2).pdf(0) * np.exp(
                    -((x[:length, feature, None] - waves) ** 2) / (2 * 1.2**2)
                )
                expected[row, index] *= density.prod(0).mean()
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(task.posterior(sample.features, sample.lengths), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.frequencies=[0.1,0.11]", "data.noise=0.02", "data.num_features=1"),
        ("data.frequencies=[0.1,0.1001]", "data.noise=0.1", "data.num_features=1", "data.max_length=200"),
    ],
    ids=["little noise", "long sequences"],
)
def test_the_ceiling_holds_where_the_likelihood_is_a_sharp_peak(overrides: tuple[str, ...]) -> None:
    task = task_of("data=sinusoids", *overrides)
    assert isinstance(task, Sinusoids)
    judge = task.generate(0, "test", np.arange(4000))
    right = task.posterior(judge.features, judge.lengths).argmax(1) == judge.classes
    # Four standard errors of the difference: both means are over 4000 sequences.
    assert abs(right.mean() - task.ceiling()) < 4 * np.sqrt(2 * task.ceiling() * (1 - task.ceiling()) / 4000)


def test_the_ceiling_falls_with_noise() -> None:
    ceilings = [task_of("data=sinusoids", f"data.noise={noise}").ceiling() for noise in (0.5, 1, 2, 20)]
    assert ceilings == sorted(ceilings, reverse=True)
    assert ceilings[-1] < 0.40
    assert min(ceilings) > 1 / 3


@pytest.mark.parametrize("variant", ["6a", "6b"])
@pytest.mark.parametrize("level", LEVELS)
def test_temporal_order_is_the_papers(variant: str, level: str) -> None:
    task = task_of("data=temporal_order", f"data.variant={variant}", f"data.level={level}")
    assert isinstance(task, TemporalOrder)
    sequences = task.generate(0, "train", np.arange(400))
    seen = set()
    for x, length, label in zip(*sequences, strict=True):
        assert (x[:length].sum(1) == 1).all()
        word = "".join(SYMBOLS[index] for index in x[:length].argmax(1))
        assert task.length_range[0] <= length <= task.length_range[1]
        assert word[0] == "B"
        assert word[-1] == "E"
        assert "B" not in word[1:]
        assert "E" not in word[:-1]
        relevant = [(position, symbol) for position, symbol in enumerate(word) if symbol in "XY"]
        assert len(relevant) == len(task.positions)
        for (position, _), (low, high) in zip(relevant, task.positions, strict=True):
            assert low <= position <= high
        assert label == int("".join("01"["XY".index(symbol)] for _, symbol in relevant), 2)
        seen.add(int(label))
    assert len(seen) == task.num_classes == round(1 / task.chance)
    assert task.ceiling() == 1.0
