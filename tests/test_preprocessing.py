"""Splits and preprocessing: the fast way equals the obvious one, and neither order nor company changes anything."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import RobustScaler, StandardScaler

from grulab import compose
from grulab.config_error import ConfigError
from grulab.field_types import SPLITS
from grulab.sequence_files import preprocessing
from grulab.sequence_files.flat import FlatSequences
from grulab.sequence_files.splits import with_splits
from grulab.tasks.files import Files
from grulab.tasks.registry import build_task
from tests.sequences import Data, make


def task_of(path: Path, *overrides: str) -> Files:
    task = build_task(compose(["data=files", f"data.path={path}", *overrides]).data)
    assert isinstance(task, Files)
    return task


def obviously(steps: preprocessing.Preprocessing, sequence: np.ndarray) -> np.ndarray:
    """Preprocess one sequence, value by value."""
    filled, last = [], list(steps.fill or [])
    for row in sequence:
        last = [value if not np.isnan(value) else last[column] for column, value in enumerate(row)]
        filled.append(last)
    kept = list(range(0, len(sequence), steps.every))
    if steps.max_steps is not None:
        kept = kept[: steps.max_steps] if steps.cut == "end" else kept[-steps.max_steps :]
    rows = []
    for step in kept:
        scaled = [(v - c) / s for v, c, s in zip(filled[step], steps.center, steps.spread, strict=True)]
        rows.append([*scaled, *(float(np.isnan(sequence[step, column])) for column in steps.indicators)])
    return np.array(rows, np.float32)


@settings(max_examples=200)
@given(st.data())
def test_preprocessing_equals_the_obvious_one(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 3))
    lengths = np.array(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=6)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    values = rng.normal(size=(int(lengths.sum()), width)) * 10
    fill = data.draw(st.booleans())
    if fill:
        values[rng.random(values.shape) < 0.3] = np.nan
    steps = preprocessing.Preprocessing(
        fill=rng.normal(size=width).tolist() if fill else None,
        indicators=data.draw(st.lists(st.integers(0, width - 1), unique=True)) if fill else [],
        every=data.draw(st.integers(1, 4)),
        max_steps=data.draw(st.none() | st.integers(1, 6)),
        cut=data.draw(st.sampled_from(["end", "start"])),
        center=rng.normal(size=width).tolist(),
        spread=(0.1 + rng.random(width)).tolist(),
    )
    found = steps.apply(values, lengths)
    parts = np.split(values, np.cumsum(lengths)[:-1])
    expected = [obviously(steps, part) for part in parts]
    assert steps.lengths(lengths).tolist() == [len(part) for part in expected]
    np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize("scale", ["standard", "robust", "none"])
def test_scaling_is_that_of_the_training_steps(tmp_path: Path, scale: str) -> None:
    data = make(count=80, split=True)
    task = task_of(data.write(tmp_path / "a.csv"), f"data.scale={scale}", "data.every=2")
    chosen = {split: task.ids(split) for split in SPLITS}
    raw = {f"s{number}": sequence[::2] for number, sequence in enumerate(data.sequences)}
    train = np.concatenate([raw[name] for name in chosen["train"]])
    fitted = {
        "standard": StandardScaler().fit(train),
        "robust": RobustScaler(unit_variance=True).fit(train),
        "none": None,
    }[scale]
    for split in SPLITS:
        sequences = task.generate(0, split, np.arange(task.size(split)))
        for name, x, length in zip(chosen[split], sequences.features, sequences.lengths, strict=True):
            expected = raw[name] if fitted is None else fitted.transform(raw[name])
            np.testing.assert_allclose(x[:length], expected, rtol=1e-6, atol=1e-6)
            assert not x[length:].any()


def test_scaling_happens_in_64_bits(tmp_path: Path) -> None:
    """As 32-bit floats, ten neighbouring Unix times are one number."""
    data = make(features=1)
    moved = Data([1.7e9 + sequence for sequence in data.sequences], data.labels)
    plain, shifted = (task_of(one.write(tmp_path / f"{k}.npz")) for k, one in enumerate((data, moved)))
    order = np.argsort(plain.flat.ids.astype(int))
    other = np.argsort(shifted.flat.ids.astype(int))
    for task in (plain, shifted):
        assert task.preprocessing.fill is None
    one = plain.preprocessing.apply(plain._values_of(order), plain.flat.lengths[order])
    two = shifted.preprocessing.apply(shifted._values_of(other), shifted.flat.lengths[other])
    assert np.abs(one).max() > 1
    # The splits differ, because the contents do: the scales are alike, not equal.
    assert np.corrcoef(one[:, 0], two[:, 0])[0, 1] > 1 - 1e-9


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_a_constant_feature_becomes_zero(tmp_path: Path, scale: str) -> None:
    table = make().table().assign(b=0.1)
    table.to_csv(tmp_path / "a.csv", index=False)
    task = task_of(tmp_path / "a.csv", f"data.scale={scale}")
    assert not task.generate(0, "test", np.arange(task.size("test"))).features[:, :, 1].any()


def test_gaps_are_filled_and_indicated(tmp_path: Path) -> None:
    table = make(longest=6, count=40).table()
    rng = np.random.default_rng(0)
    table.loc[rng.random(len(table)) < 0.3, "a"] = np.nan
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ConfigError, match=r"a value is missing; data.missing=fill fills it in"):
        task_of(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"data.missing_indicator=true: needs data.missing=fill"):
        task_of(tmp_path / "a.csv", "data.missing_indicator=true")
    task = task_of(tmp_path / "a.csv", "data.missing=fill", "data.missing_indicator=true")
    assert task.feature_names == ["a", "b", "a missing"]
    gaps = {name: part["a"].isna().to_numpy() for name, part in table.groupby("id")}
    sequences = task.generate(0, "train", np.arange(task.size("train")))
    for name, x, length in zip(task.ids("train"), sequences.features, sequences.lengths, strict=True):
        np.testing.assert_array_equal(x[:length, 2], gaps[name].astype(np.float32))
    assert np.isfinite(sequences.features).all()
    # Where nothing is missing there is no indicator.
    assert (
        task_of(make().write(tmp_path / "b.csv"), "data.missing=fill", "data.missing_indicator=true").num_features
        == 2
    )


def flat_of(classes: np.ndarray, groups: np.ndarray | None = None) -> FlatSequences:
    count = len(classes)
    names = [] if groups is None else [str(name) for name in range(int(groups.max()) + 1)]
    return FlatSequences(
        np.zeros((count, 1)), np.ones(count, np.int64), classes, [str(c) for c in range(int(classes.max()) + 1)],
        np.arange(count).astype(str), np.full(count, -1, np.int8), groups, names, ["x"],
    )  # fmt: skip


@given(st.lists(st.integers(3, 60), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_splits_are_stratified_and_independent_of_the_order(sizes: list[int], seed: int) -> None:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    keys = np.random.default_rng(seed).permutation(2**20)[: len(classes)].astype(np.uint64)
    fractions = {"val": 0.2, "test": 0.3}
    splits, notes = with_splits("x", flat_of(classes), keys, fractions)
    assert notes == []
    for code, size in enumerate(sizes):
        counts = np.bincount(splits[classes == code], minlength=3)
        assert counts.min() >= 1
        assert abs(counts[1] - 0.2 * size) <= 1
        assert abs(counts[2] - 0.3 * size) <= 1
    order = np.random.default_rng(seed + 1).permutation(len(classes))
    again, _ = with_splits("x", flat_of(classes[order]), keys[order], fractions)
    np.testing.assert_array_equal(again, splits[order])


@given(st.lists(st.integers(1, 20), min_size=12, max_size=40), st.integers(0, 2**32 - 1))
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    classes = rng.integers(0, 2, len(groups))
    keys = rng.permutation(2**20)[: len(groups)].astype(np.uint64)
    try:
        splits, _ = with_splits("x", flat_of(classes, groups), keys, {"val": 0.2, "test": 0.2})
    except ConfigError:
        # A class may happen to be in few groups.
        assume(False)
    assert all(len(set(splits[groups == group])) == 1 for group in range(len(sizes)))
    assert set(splits.tolist()) == {0, 1, 2}
    order = rng.permutation(len(groups))
    again, _ = with_splits("x", flat_of(classes[order], groups[order]), keys[order], {"val": 0.2, "test": 0.2})
    np.testing.assert_array_equal(again, splits[order])


def test_another_seed_makes_other_splits(tmp_path: Path) -> None:
    path = make().write(tmp_path / "a.csv")
    sets = [set(task_of(path, f"data.seed={seed}").ids("test")) for seed in (0, 0, 1)]
    assert sets[0] == sets[1]
    assert sets[0] != sets[2]


def test_the_share_of_each_split_is_configured(tmp_path: Path) -> None:
    path = make(count=90).write(tmp_path / "a.csv")
    task = task_of(path, "data.val_fraction=0.1", "data.test_fraction=0.4")
    assert [task.size(split) for split in SPLITS] == [45, 9, 36]
    with pytest.raises(ConfigError, match=r"data.val_fraction=0.6: with data.test_fraction=0.4 nothing is left"):
        compose(["data=files", f"data.path={path}", "data.val_fraction=0.6", "data.test_fraction=0.4"])


def test_groups_of_a_file_stay_together(tmp_path: Path) -> None:
    table = make(count=90).table()
    table["group"] = "g" + (table["id"].str[1:].astype(int) // 6).astype(str)
    table.to_csv(tmp_path / "a.csv", index=False)
    task = task_of(tmp_path / "a.csv")
    groups = pd.Series(table["group"].to_numpy(), index=table["id"]).groupby(level=0).first()
    found = [set(groups[task.ids(split)]) for split in SPLITS]
    assert all(found)
    assert sum(map(len, found)) == len(set().union(*found))
