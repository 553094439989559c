"""Files of sequences: every form gives the same sequences, and what is odd in one is named in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grulab import SequenceDataModule, compose
from grulab.config_error import ConfigError
from grulab.tasks.files import Files
from grulab.tasks.registry import build_task
from tests.conftest import forked
from tests.sequences import Data, make, write_ts

HEAD = "id,time,x,y,label\n"


def task_of(path: Path, *overrides: str) -> Files:
    task = build_task(compose(["data=files", f"data.path={path}", *overrides]).data)
    assert isinstance(task, Files)
    return task


def write(path: Path, rows: str, head: str = HEAD) -> Path:
    path.write_text(head + rows)
    return path


def good_rows(count: int = 12) -> str:
    """Return rows of twelve sequences of two steps in two classes."""
    lines = [f"{k},{t},{k + t / 10},{-k},{'no' if k % 2 else 'yes'}" for k in range(count) for t in range(2)]
    return "\n".join(lines) + "\n"


def test_every_form_and_order_is_the_same_content(tmp_path: Path) -> None:
    data = make(split=True)
    order = list(np.random.default_rng(1).permutation(len(data.labels)))
    paths = [data.write(tmp_path / f"a{suffix}") for suffix in (".csv", ".tsv", ".parquet", ".npz", ".ts")]
    paths += [data.write(tmp_path / f"b{suffix}", order) for suffix in (".csv", ".parquet", ".npz")]
    table = data.table()
    table.drop(columns=["label", "split"]).to_csv(tmp_path / "bare.csv", index=False)
    labels = table.drop_duplicates("id")[["label", "split", "id"]]
    labels.sample(frac=1, random_state=0).to_csv(tmp_path / "labels.csv", index=False)
    tasks = [task_of(path) for path in paths]
    tasks.append(task_of(tmp_path / "bare.csv", f"data.labels={tmp_path / 'labels.csv'}"))
    arrays = SequenceDataModule.from_arrays(data.sequences, data.labels, split=data.splits).task
    assert isinstance(arrays, Files)
    tasks.append(arrays)
    assert len({task.content for task in tasks}) == 1
    first = tasks[0]
    for task in tasks[1:]:
        for split in ("train", "val", "test"):
            indices = np.arange(first.size(split))
            for one, other in zip(first.generate(0, split, indices), task.generate(0, split, indices), strict=True):
                np.testing.assert_array_equal(one, other)


def test_another_value_label_or_split_is_another_content(tmp_path: Path) -> None:
    data = make(split=True)
    contents = {task_of(data.write(tmp_path / "a.csv")).content}
    changed = [sequence.copy() for sequence in data.sequences]
    changed[3][0, 1] = np.nextafter(changed[3][0, 1], 9)
    assert data.splits is not None
    for number, other in enumerate(
        (
            Data(changed, data.labels, data.splits),
            Data(data.sequences, [data.labels[1], *data.labels[1:]], data.splits),
            Data(data.sequences, data.labels, ["test", *data.splits[1:]]),
            Data(data.sequences[:-1], data.labels[:-1], data.splits[:-1]),
        )
    ):
        contents.add(task_of(other.write(tmp_path / f"{number}.csv")).content)
    assert len(contents) == 5


def test_texts_stay_texts(tmp_path: Path) -> None:
    """Ids 001 and 1 are two sequences, NA and None are classes, and a float is read as it was written."""
    rows = "".join(f"{i},0,{x},1,{c}\n" for i, x, c in (("001", 0.1, "NA"), ("1", 0.3, "None"))) * 1
    rows += "".join(f"{k}x,0,{k}.1,1,{'NA' if k % 2 else 'None'}\n" for k in range(10))
    task = task_of(write(tmp_path / "a.csv", rows))
    assert task.class_names == ["NA", "None"]
    assert {"001", "1"} <= set(task.flat.ids.tolist())
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.random.default_rng(1).integers(-300, 300, 1000)
    frame = pd.DataFrame({"id": np.arange(1000) // 10, "time": np.arange(1000), "x": values})
    frame["label"] = frame["id"] % 2
    frame.to_csv(tmp_path / "b.csv", index=False)
    assert set(task_of(tmp_path / "b.csv").flat.values[:, 0].tolist()) == set(values.tolist())


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    rows = "".join(f"{k},0,{k},1,class{(2, 10, 1)[k % 3]}\n" for k in range(12))
    assert task_of(write(tmp_path / "a.csv", rows)).class_names == ["class1", "class2", "class10"]


@pytest.mark.parametrize("times", ["2026-01-0{}T00:00:00", "2026-01-0{} 10:00:00+02:00", "{}.5", "-{}"])
def test_dates_and_numbers_are_times(tmp_path: Path, times: str) -> None:
    rows = "".join(f"{k},{times.format(t)},{t},1,{k % 2}\n" for k in range(12) for t in (2, 1, 3))
    values = task_of(write(tmp_path / "a.csv", rows)).flat.values[:3, 0].tolist()
    assert values == ([3, 2, 1] if times == "-{}" else [1, 2, 3])


BAD = [
    ("0,5,,1,yes\n", "a.csv: row 26 (id 0), column x: a value is missing; data.missing=fill fills it in"),
    ("0,5,nan,1,yes\n", "a.csv: row 26 (id 0), column x: a value is missing; data.missing=fill fills it in"),
    ("0,5,1,-inf,yes\n", "a.csv: row 26 (id 0), column y: the value is infinite"),
    ("0,5,1,abc,yes\n", "a.csv: row 26 (id 0), column y: 'abc' is no number"),
    ("0,5,1,1_0,yes\n", "a.csv: row 26 (id 0), column y: '1_0' is no number"),
    ("0,1,1,1,yes\n", "a.csv: row 26 (id 0): has the same id and time as row 3"),
    ("0,5,1,1,no\n", "a.csv: row 26 (id 0): the label is 'no', and 'yes' in the rows before"),
    ("x,5,1,1,\n", "a.csv: row 26 (id x): has no label"),
    (",5,1,1,yes\n", "a.csv: row 26: has no id in column id"),
    ("0,then,1,1,yes\n", "a.csv: row 26 (id 0), column time: 'then' is neither a number nor a date"),
    ("0,inf,1,1,yes\n", "a.csv: row 26 (id 0), column time: the time is infinite"),
    ("0,5,1\n", "a.csv: row 26 has 3 fields, and there are 5 columns; is it cut off?"),
    ("0,5,1,1,yes,more\n", "a.csv: "),
    ("rare,0,1,1,maybe\n", "a.csv: the label 'maybe' has 1 sequences, too few for 3 splits"),
    ('0,5,1,1,"yes\n', "a.csv: "),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "a.csv", good_rows() + row)
    with pytest.raises(ConfigError) as caught:
        task_of(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "overrides", "message"),
    [
        ("id,time,x,x,label\n", [], "a.csv: the column 'x' is there twice"),
        ("id,time,x,,label\n", [], "a.csv: column 4 has no name"),
        ("name,time,x,y,label\n", [], "data.id_column=id: a.csv has no such column; it has name, time, x, y, label"),
        ("id,when,x,y,label\n", [], "data.time_column=time: a.csv has no such column"),
        ("id,time,x,y,class\n", [], "data.label_column=label: a.csv has no such column"),
        (HEAD, ["data.features=[x,z]"], "data.features=z: a.csv has no such column"),
        (HEAD, ["data.features=[x,label]"], "data.features=label: is the column of data.label_column already"),
        (HEAD, ["data.features=[x,x]"], "names a column twice"),
        (HEAD, ["data.split_column=part"], "data.split_column=part: a.csv has no such column"),
        (HEAD, ["data.label_column=id"], "two of data.*_column name the same column"),
        ("id;time;x;y;label\n", [], "a .csv is separated by commas"),
    ],
)
def test_a_bad_column_is_named(tmp_path: Path, head: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of(write(tmp_path / "a.csv", good_rows(), head), *overrides)
    assert message in str(caught.value)


def test_labels_that_are_measurements(tmp_path: Path) -> None:
    rows = "".join(f"{k},0,1,{k},{k / 7}\n" for k in range(12))
    with pytest.raises(ConfigError, match=r"12 of 12 labels are different numbers, such as '0.0': they look like"):
        task_of(write(tmp_path / "a.csv", rows))


def test_a_single_class(tmp_path: Path) -> None:
    rows = "".join(f"{k},0,1,{k},one\n" for k in range(12))
    with pytest.raises(ConfigError, match="every sequence has the label 'one'; two classes are needed"):
        task_of(write(tmp_path / "a.csv", rows))


SPLIT_HEAD = "id,x,label,split\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("9,1,c,test\n", "test has the label c, and train has no sequence of it"),
        ("9,1,a,dev\n", "a.csv: row 10 (id 9): the split 'dev' is none of train, val, test"),
        ("9,1,a,\n", "a.csv: row 10 (id 9): has no split"),
        ("1,2,b,test\n", "a.csv: row 10 (id 1): the split is 'test', and 'train' in the rows before"),
    ],
)
def test_splits_of_a_file(tmp_path: Path, rows: str, message: str) -> None:
    good = "".join(f"{k},{k},{'ab'[k % 2]},{('train', 'train', 'val', 'test')[k // 2]}\n" for k in range(8))
    path = write(tmp_path / "a.csv", good, SPLIT_HEAD)
    assert [task_of(path, "data.time_column=null").size(name) for name in ("train", "val", "test")] == [4, 2, 2]
    with pytest.raises(ConfigError) as caught:
        task_of(write(path, good + rows, SPLIT_HEAD), "data.time_column=null")
    assert message in str(caught.value)


def test_a_group_in_two_splits(tmp_path: Path) -> None:
    rows = "".join(f"{k},{k},{'ab'[k % 2]},{('train', 'test')[k // 6]},{k // 4}\n" for k in range(12))
    path = write(tmp_path / "a.csv", rows, "id,x,label,split,group\n")
    with pytest.raises(ConfigError, match="the group '1' is in train and in test; a group stays together"):
        task_of(path, "data.time_column=null")


def test_a_table_of_labels(tmp_path: Path) -> None:
    bare = "id,time,x\n" + "".join(f"{k},0,{k}\n" for k in range(12))
    (tmp_path / "a.csv").write_text(bare)
    good = "".join(f"{k},{'ab'[k % 2]}\n" for k in range(12))
    labels = tmp_path / "labels.csv"
    for rows, message in (
        (good + "3,a\n", "labels.csv: row 14 (id 3): the id is there already"),
        (good + "99,a\n", "labels.csv: row 14 (id 99): a.csv has no rows of it: the sequence is empty"),
        (good.replace("7,b\n", ""), "labels.csv: has no row for the id '7' of a.csv"),
        (good.replace("7,b\n", "7,\n"), "labels.csv: row 9 (id 7): has no label"),
    ):
        labels.write_text("id,label\n" + rows)
        with pytest.raises(ConfigError) as caught:
            task_of(tmp_path / "a.csv", f"data.labels={labels}")
        assert message in str(caught.value)
    labels.write_text("id,label\n" + good)
    (tmp_path / "b.csv").write_text(HEAD + good_rows())
    with pytest.raises(ConfigError, match=r"b.csv: has a column label, and data.labels names a table"):
        task_of(tmp_path / "b.csv", f"data.labels={labels}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": np.array([2, 2, 1] * 4)}, "lengths add up to 20 steps, and values has 24"),
        ({"lengths": np.array([4, 0] + [2] * 10)}, "sequence 2 (id 2): is empty: it has 0 steps"),
        ({"labels": np.array(["a"] * 11)}, "labels has the shape (11,), not (12,), one for each sequence"),
        ({"labels": np.array(["a", None] * 6, dtype=object)}, "an array of objects, which only pickle could read"),
        ({"values": np.zeros((4, 6, 2))}, "of padded sequences keep the steps alone"),
        ({"values": np.array(["a"] * 24)[:, None]}, "numbers are needed"),
        ({"other": np.zeros(3)}, "has the array 'other', which is none of values, lengths, labels"),
        ({"labels": np.arange(12) / 5}, "labels holds 0.2: grulab tells classes apart"),
        ({"id": np.array(["x"] * 12)}, "the id 'x' is there more than once"),
        ({"values": np.full((24, 2), np.inf)}, "sequence 1 (id 1), step 1, column feature_1: the value is infinite"),
        ({"labels": np.array([""] + ["b"] * 11)}, "sequence 1 (id 1): has no label"),
        ({"class_names": np.array(["a"])}, "labels is <U1; with class_names they are positions from 0"),
        ({"split": np.array(["train", "dev"] * 6)}, "sequence 2 (id 2): the split"),
        ({"lengths": None}, "has no array lengths"),
    ],
)
def test_a_bad_npz_is_named(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {"values": np.arange(48.0).reshape(24, 2), "lengths": np.full(12, 2), "labels": np.array(["a", "b"] * 6)}
    np.savez(tmp_path / "a.npz", **{k: v for k, v in (arrays | changes).items() if v is not None})
    with pytest.raises(ConfigError) as caught:
        task_of(tmp_path / "a.npz")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_an_npz_may_be_positions(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", values=np.arange(24.0), lengths=np.full(12, 2), labels=np.arange(12) % 2,
        class_names=np.array(["up", "down"]),
    )  # fmt: skip
    assert task_of(tmp_path / "a.npz").class_names == ["down", "up"]


TS = "@problemName x\n@timeStamps false\n@classLabel true a b\n@data\n" + "1,2:3,4:a\n5,6,7:8,9,1:b\n" * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("@timeStamps false", "@timeStamps true"), "line 2: has time stamps"),
        (("@classLabel true a b", "@classLabel false"), "without labels there are no classes"),
        (("@classLabel true a b", "@classLabel perhaps"), "line 3: @classLabel is neither true nor false"),
        (("@classLabel true a b", "@targetLabel true"), "line 3: @targetLabel is for regression"),
        (("@classLabel true a b\n", ""), "without labels there are no classes"),
        (("3,4:a", "3,4:c"), "line 5 has the label 'c'; @classLabel declares a, b"),
        (("3,4:a", "3,4:"), "line 5 has no label"),
        (("1,2:3,4:a", "1,2:3:a"), "line 5 has dimensions of 1 and of 2 steps"),
        (("1,2:3,4:a", "1,2:a"), "line 6 has 2 dimensions, and the first sequence has 1"),
        (("1,2:3,4:a", "1,z:3,4:a"), "line 5, dimension 1, step 2: 'z' is no number"),
        (("1,2:3,4:a", "?,?:?,?:a"), "line 5: the sequence is empty"),
        (("@data\n", ""), "comes before @data"),
        (("@problemName", "@nonsense"), "line 1: '@nonsense' is no word of a .ts file"),
        (("1,2:3,4:a", "(0,1),(1,2):a"), "line 5 has time stamps"),
    ],
)
def test_a_bad_ts_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "a.ts").write_text(TS.replace(*change, 1))
    with pytest.raises(ConfigError) as caught:
        task_of(tmp_path / "a.ts")
    assert message in str(caught.value)


def test_padding_at_the_end_of_a_ts_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(TS.replace("1,2:3,4:a", "1,2,?:3,4,NaN:a"))
    assert sorted(set(task_of(tmp_path / "a.ts").flat.lengths.tolist())) == [2, 3]
    # A gap inside stays one.
    (tmp_path / "b.ts").write_text(TS.replace("1,2:3,4:a", "1,?,2:3,?,4:a"))
    with pytest.raises(ConfigError, match=r"line 5 .* a value is missing"):
        task_of(tmp_path / "b.ts")


def test_a_pair_of_which_one_is_missing(tmp_path: Path) -> None:
    write_ts(tmp_path / "a_TRAIN.ts", [np.ones((2, 1))], ["x"], ["x", "y"])
    with pytest.raises(ConfigError, match=r"its pair a_TEST\.ts is not beside it"):
        task_of(tmp_path / "a_TRAIN.ts")


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "a.xlsx").touch()
    os.mkfifo(tmp_path / "fifo.csv")
    for path, message in (
        ("nothing.csv", "no such file"),
        ("folder.csv", "is a folder; name a file in it"),
        ("fifo.csv", "is not a regular file"),
        ("a.xlsx", "is none of .csv, .tsv"),
    ):
        process = forked(tmp_path, "train", "data=files", f"data.path={path}")
        assert process.returncode == 2
        assert process.stderr.startswith("grulab: data.path=")
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
    assert forked(tmp_path, "train", "data=files").stderr == (
        "grulab: data.path: has no value; name a .csv, .tsv, .parquet, .npz or .ts file\n"
    )
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign(time=-d["time"]).sample(frac=1, random_state=1), "the time is unsorted in"),
        (lambda d: d.assign(b=1.0), "b: constant in train, so it tells nothing"),
        (
            lambda d: d.assign(b=np.where(d.index == 30, 1e9, d["b"])),
            "b: some values are far from the others",
        ),
        (lambda d: d.assign(b=np.arange(len(d))), "b: rises from row to row in every sequence, as a time stamp does"),
        (
            lambda d: d[~((d["label"] == "class8") & (d["id"].str[1:].astype(int) > 11))],
            "fewer than 5 sequences have",
        ),
        (lambda d: d.assign(label=np.where(d["id"].isin(["s0", "s1", "s2"]), "u", "v")), "out of balance: 57"),
    ],
)
def test_what_is_odd_is_noted(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    change(make(longest=8).table()).to_csv(tmp_path / "a.csv", index=False)
    notes = "\n".join(task_of(tmp_path / "a.csv").notes)
    assert message in notes


def test_subsampling_that_leaves_one_step_is_noted(tmp_path: Path) -> None:
    path = make(longest=8).write(tmp_path / "a.csv")
    assert "data.every=8 leaves one step of every sequence" in "\n".join(task_of(path, "data.every=8").notes)
    assert "one step" not in "\n".join(task_of(path, "data.every=7").notes)


def test_the_same_sequence_in_two_splits_is_noted(tmp_path: Path) -> None:
    data = make(split=True)
    assert data.splits is not None
    twice = Data([*data.sequences, data.sequences[0]], [*data.labels, data.labels[0]], [*data.splits, "test"])
    notes = "\n".join(task_of(twice.write(tmp_path / "a.csv")).notes)
    assert "1 sequences are the same in two splits, such as id 's0' in train and id 's60' in test" in notes
    assert "the same in two splits" not in "\n".join(task_of(data.write(tmp_path / "b.csv")).notes)


def test_a_file_is_parsed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grulab.sequence_files import cache

    path = make().write(tmp_path / "a.csv")
    os.utime(path, (1e9, 1e9))
    parsed: list[Path] = []
    original = cache._parse
    monkeypatch.setattr(cache, "_parse", lambda *arguments: (parsed.append(path), original(*arguments))[1])
    monkeypatch.setattr(cache, "_TRUSTED_AFTER_SECONDS", -1e12)
    before = task_of(path).content
    assert task_of(path, "data.scale=none").content == before
    assert len(parsed) == 1
    make(seed=1).write(path)
    assert task_of(path).content != before
    assert len(parsed) == 2
    # A spoilt part of the cache is made again.
    folder = cache.folder_of_cache()
    assert folder is not None
    for values in (folder / "contents").glob("*/values.npy"):
        values.write_bytes(values.read_bytes()[:100])
    task_of(path, "data.scale=robust")
    assert len(parsed) == 3


def test_without_a_cache_everything_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    task = task_of(make().write(tmp_path / "a.csv"))
    assert task.cache_folder is None
    assert task.size("train") > 0
