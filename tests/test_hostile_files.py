"""Files, a cache and checkpoints made to deceive: each is named in one line, or what is odd in it is not used."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grulab import SequenceDataModule, compose, train
from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_file import KEY, load
from grulab.sequence_files import cache
from grulab.sequence_files.flat import natural_key
from grulab.tasks.files import Files
from grulab.tasks.registry import build_task
from tests.conftest import SMALL, forked, reseal
from tests.sequences import Data, make

BRIEF = ["data=files", "trainer.max_epochs=1", "trainer.accelerator=cpu"]


def save(path: Path, data: Data, **changes: np.ndarray) -> Path:
    """Write an .npz file."""
    arrays = {
        "values": np.concatenate(data.sequences),
        "lengths": np.array([len(sequence) for sequence in data.sequences]),
        "labels": np.array(data.labels),
    }
    np.savez(path, **(arrays | changes))
    return path


def refused(folder: Path, *arguments: str) -> str:
    process = forked(folder, *arguments)
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("\n") == 1
    return process.stderr


def test_evaluation_and_prediction_find_features_by_name_alike(tmp_path: Path) -> None:
    data = make(count=60)
    table = data.table().rename(columns={"a": "feature_2", "b": "feature_1"})
    table.to_csv(tmp_path / "train.csv", index=False)
    train(compose([*BRIEF, f"data.path={tmp_path / 'train.csv'}", "trainer.max_epochs=5"]), tmp_path / "run")
    new = make(count=50, seed=3)
    swapped = Data([sequence[:, ::-1] for sequence in new.sequences], new.labels)
    named = save(tmp_path / "named.npz", swapped, feature_names=np.array(["feature_1", "feature_2"]))
    for path in (named, save(tmp_path / "nameless.npz", new)):
        found = pd.read_csv(io.StringIO(forked(tmp_path, "predict", "run", str(path)).stdout))
        accuracy = float((found["truth"] == found["prediction"]).mean())
        assert f"{accuracy:.4f}" in forked(tmp_path, "evaluate", "run", f"data.path={path}").stdout
    # The same numbers under other names are other sequences.
    same = save(tmp_path / "same.npz", data, feature_names=np.array(["feature_1", "feature_2"]))
    assert "All 60 sequences of same.npz" in forked(tmp_path, "evaluate", "run", f"data.path={same}").stdout


def test_an_inspection_writes_through_no_link(tmp_path: Path) -> None:
    path = make(count=60).write(tmp_path / "a.csv")
    assert forked(tmp_path, "inspect", str(path)).returncode == 0
    (figure,) = (tmp_path / "outputs" / "inspect").iterdir()
    (tmp_path / "precious").write_text("mine")
    figure.unlink()
    figure.symlink_to(tmp_path / "precious")
    assert "is a link, and grulab writes a regular file there" in refused(tmp_path, "inspect", str(path))
    assert (tmp_path / "precious").read_text() == "mine"
    shutil.rmtree(tmp_path / "outputs")
    (tmp_path / "outputs").write_text("mine")
    assert "outputs: is a regular file, and grulab writes a folder there" in refused(tmp_path, "inspect", str(path))


def test_labels_of_any_script() -> None:
    assert sorted(["10²", "10³", "9", "٣", "①", "10"], key=natural_key)[:2] == ["9", "10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.empty((30 * (2**40 - 1), 0)), "lengths": np.full(60, 2**39)}, "values has no features"),
        ({"feature_names": np.array(["", "b"])}, "feature_names holds an empty name"),
        ({"labels": np.array([f"c{number}" for number in range(2001)] * 3)}, "labels has the shape"),
    ],
)
def test_a_deceiving_npz(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    assert message in refused(tmp_path, "inspect", str(save(tmp_path / "a.npz", make(count=60), **changes)))


def test_an_archive_of_what_is_no_array(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", make(count=60))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("id.npy", b"hello")
    assert "id is no array of NumPy's" in refused(tmp_path, "inspect", str(path))
    path = save(tmp_path / "b.npz", make(count=60))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("values", archive.read("values.npy"))
    assert "has an array twice" in refused(tmp_path, "inspect", str(path))


def test_too_many_classes_and_too_long_an_id(tmp_path: Path) -> None:
    many = Data([np.ones((1, 1))] * 6003, [f"c{number % 2001}" for number in range(6003)])
    assert "has 2,001 different labels" in refused(tmp_path, "inspect", str(many.write(tmp_path / "many.csv")))
    rows = "".join(f"{number},0,1,{number % 2}\n" for number in range(140_000))
    (tmp_path / "long.csv").write_text(f"id,time,x,label\n{'i' * 1000},0,1,0\n{rows}")
    assert "has 1000 characters, too many for 140,001 sequences" in refused(tmp_path, "inspect", "long.csv")


def test_a_feature_with_the_name_of_another_column(tmp_path: Path) -> None:
    data = make(count=60)
    path = save(tmp_path / "a.npz", data, feature_names=np.array(["time", "label"]))
    train(compose([*BRIEF, f"data.path={path}"]), tmp_path / "run")
    data.write(tmp_path / "b.csv")
    assert "would be a feature of the model and its data.time_column" in refused(tmp_path, "predict", "run", "b.csv")
    assert forked(tmp_path, "predict", "run", str(path)).returncode == 0


def test_one_long_sequence_is_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence that spans many parts is the one that it is in one part."""
    data = make(count=60)
    data.sequences[7] = np.random.default_rng(0).normal(size=(700, 2))
    path = data.write(tmp_path / "a.csv")
    train(compose([*BRIEF, f"data.path={path}"]), tmp_path / "run")
    whole = forked(tmp_path, "predict", "run", str(path)).stdout
    monkeypatch.setattr("grulab.sequence_files.stream._ROWS_TOGETHER", 64)
    assert forked(tmp_path, "predict", "run", str(path)).stdout == whole


def test_labels_that_a_prediction_does_not_need(tmp_path: Path) -> None:
    data = make(count=60)
    table = data.table()
    path = data.write(tmp_path / "a.csv")
    train(compose([*BRIEF, f"data.path={path}"]), tmp_path / "run")
    for number, empty in enumerate((None, np.nan)):
        table.assign(label=empty).to_parquet(tmp_path / f"{number}.parquet", index=False)
        process = forked(tmp_path, "predict", "run", f"{number}.parquet")
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith("id,prediction,")


def test_labels_of_truth_are_the_same_in_every_form(tmp_path: Path) -> None:
    table = make(count=60).table().assign(label=lambda d: d["id"].str[1:].astype(int) % 2 == 0)
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet", index=False)
    one, other = (compose(["data=files", f"data.path={tmp_path / name}"]).data for name in ("a.csv", "a.parquet"))
    assert one.content == other.content  # type: ignore[attr-defined]


@pytest.mark.parametrize("word", ["NAN", "-nan", "now"])
def test_words_that_pandas_takes_for_more_than_they_are(tmp_path: Path, word: str) -> None:
    table = make(count=60).table().astype(object)
    column = "time" if word == "now" else "a"
    table.loc[3, column] = word
    table.to_csv(tmp_path / "a.csv", index=False)
    message = refused(tmp_path, "inspect", "a.csv")
    assert f"row 5 (id s0), column {column}: '{word}' is" in message or f"column {column}: '{word}' is" in message


def test_a_model_without_a_finite_answer(tmp_path: Path) -> None:
    path = make(count=60).write(tmp_path / "a.csv")
    train(compose([*BRIEF, f"data.path={path}"]), tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = load(best)
    for weights in content["state_dict"].values():
        weights.fill_(3e38)
    reseal(best, content)
    assert "the model has no finite answer for the sequence with id 's0'" in refused(
        tmp_path, "predict", "run", "a.csv"
    )


@pytest.mark.parametrize(("key", "value"), [("preprocessing.every", 7), ("columns.time", None)])
def test_a_task_that_contradicts_its_configuration(tmp_path: Path, key: str, value: object) -> None:
    path = make(count=60).write(tmp_path / "a.csv")
    train(compose([*BRIEF, f"data.path={path}"]), tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = load(best)
    section, name = key.split(".")
    content[KEY]["task"][section][name] = value
    reseal(best, content)
    assert f"task.{key}: is not that of its configuration" in refused(tmp_path, "predict", "run", "a.csv")


def _spoil_values(root: Path) -> None:
    (file,) = root.glob("contents/*/values.npy")
    file.unlink()
    os.mkfifo(file)


def _spoil_names(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for file in root.glob("files/*/names.json"):
            names = json.loads(file.read_text())
            change(names)
            file.write_text(json.dumps(names))

    return spoil


def _write(pattern: str, text: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        files = list(root.glob(pattern))
        assert files
        for file in files:
            file.write_text(text)

    return spoil


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (file,) = root.glob(f"contents/*/{name}.npy")
        np.save(file, change(np.load(file)))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_values,
        _spoil_names(lambda names: names.update(notes=["\x1b]0;odd\x07"])),
        _spoil_names(lambda names: names.update(feature_names=["\x1b[31m", "b"])),
        _spoil_names(lambda names: names.update(content="../../../../evil")),
        _spoil_names(lambda names: names.update(class_names=[1, 2, 3])),
        _write("files/*/names.json", "[" * 100_000),
        _write("contents/*/scaling-*.json", '{"spread": [-1, 1]}'),
        _write("contents/*/ranges-*.json", "[[99], [99]]"),
        _write("contents/*/baselines-*.json", "[1]"),
        _array("splits", lambda array: array + 9),
        _array("classes", lambda array: array + 99),
        _array("lengths", lambda array: array * 2),
    ],
)
def test_a_spoilt_cache_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Sequences that this process has not seen; and a file that was changed a moment ago is not recognised.
    path = make(count=60, seed=991).write(tmp_path / "a.csv")
    os.utime(path, (1e9, 1e9))
    before = forked(tmp_path, "inspect", "a.csv")
    root = cache.folder_of_cache()
    assert root is not None
    spoil(root)
    after = forked(tmp_path, "inspect", "a.csv")
    assert after.returncode == 0, after.stderr
    assert after.stdout.split("Time\n")[0] == before.stdout.split("Time\n")[0]


def test_a_relative_cache_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.chdir(tmp_path)
    assert cache.folder_of_cache() is None
    assert list(tmp_path.iterdir()) == []


def test_odd_arrays_in_python() -> None:
    class Tensor:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("requires grad")

    good = [np.ones((2, 1)) * number for number in range(40)]
    for odd in (Tensor(), np.ma.masked_less(np.ones((2, 1)), 2)):
        with pytest.raises(ConfigError, match="sequence 40"):
            SequenceDataModule.from_arrays([*good, odd], ["a", "b"] * 20 + ["a"])
    with pytest.raises(ConfigError, match="labels are no list"):
        SequenceDataModule.from_arrays(good[:2], [["a"], ["b", "c"]])


def test_names_in_a_report_are_no_markup(tmp_path: Path) -> None:
    from grulab.report.sections import Section, to_markdown

    text = to_markdown(
        "t", [Section("s", "x.", pd.DataFrame({"class": ["<script>", "![i](http://x/y.png)", "a|b"]}))]
    )
    assert "\\<script\\>" in text
    assert "!\\[i\\](http" in text
    data = make(count=60)
    odd = Data(data.sequences, [f"[red]{label}" for label in data.labels])
    process = forked(tmp_path, "inspect", str(odd.write(tmp_path / "[x] [red]y.csv")))
    assert "[x] [red]y.csv" in process.stdout
    assert "[red]class8" in process.stdout


def test_the_home_of_nobody(tmp_path: Path) -> None:
    assert "there is no such user's home folder" in refused(tmp_path, "inspect", "~nobody-of-this-name/x.csv")
    assert "data.path=: has no value" in refused(
        tmp_path, "evaluate", str(trained_on_generated(tmp_path)), "data.path="
    )


def trained_on_generated(folder: Path) -> Path:
    train(compose([*SMALL, "trainer.max_epochs=1"]), folder / "run")
    return folder / "run"


def test_the_task_of_a_file_is_built_from_the_cache_as_from_the_file(tmp_path: Path) -> None:
    path = make(count=60).write(tmp_path / "a.csv")
    os.utime(path, (1e9, 1e9))
    config = compose(["data=files", f"data.path={path}"]).data
    one, other = build_task(config), Files(config)  # type: ignore[arg-type]
    assert isinstance(one, Files)
    assert one.ids("test") == other.ids("test")
    assert one.flat.has_names
    assert other.flat.has_names
