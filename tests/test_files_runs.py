"""From a file to a run, a sweep, a report, predictions and an export, as a person does it."""

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grulab import SequenceDataModule, compose, resume, train
from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_file import load
from tests.conftest import forked, grulab
from tests.sequences import Data, make, write_ts

BRIEF = ["trainer.max_epochs=2", "trainer.accelerator=cpu", "data=files"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(count=90, split=True).write(tmp_path_factory.mktemp("data") / "a.csv")


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(compose([*BRIEF, f"data.path={table}", "trainer.max_epochs=8"]), folder)
    return folder


def test_a_run_tells_what_it_is_worth(trained: Path, table: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert [baseline["name"] for baseline in summary["baselines"]] == [
        "majority",
        "logistic_regression",
        "segment_ridge",
    ]
    assert summary["chance"] == summary["baselines"][0]["test"]
    assert [row["class"] for row in summary["classes"]] == ["class8", "class9", "class10"]
    predictions = pd.read_csv(trained / "predictions.csv")
    assert list(predictions.columns) == ["id", "truth", "prediction", "p_class8", "p_class9", "p_class10"]
    truth = pd.read_csv(table).groupby("id")["label"].first()
    assert (predictions["truth"] == predictions["id"].map(truth)).all()
    right = predictions["truth"] == predictions["prediction"]
    assert right.mean() == pytest.approx(summary["metrics"]["test/accuracy"])
    confusion = pd.crosstab(predictions["truth"], predictions["prediction"])
    for row, one in zip(summary["confusion_matrix"], ("class8", "class9", "class10"), strict=True):
        for count, other in zip(row, ("class8", "class9", "class10"), strict=True):
            assert count == confusion.get(other, {}).get(one, 0)
    np.testing.assert_allclose(predictions.iloc[:, 3:].sum(axis=1), 1, rtol=1e-4)
    for baseline in summary["baselines"]:
        difference = (baseline["only_gru"] - baseline["only_baseline"]) / baseline["sequences"]
        assert summary["metrics"]["test/accuracy"] - baseline["test"] == pytest.approx(difference)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_run_in_any_precision_ends_with_predictions(precision: str, table: Path, tmp_path: Path) -> None:
    train(compose([*BRIEF, f"data.path={table}", f"trainer.precision={precision}"]), tmp_path / "run")
    found = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert len(found)
    assert found.notna().all().all()


def test_the_same_sequences_in_another_form_train_to_the_same_bits(tmp_path: Path) -> None:
    data = make(count=40, split=True)
    order = list(np.random.default_rng(0).permutation(40))
    weights = []
    for number, path in enumerate(
        (data.write(tmp_path / "a.csv"), data.write(tmp_path / "b.parquet", order), data.write(tmp_path / "c.ts"))
    ):
        train(compose([*BRIEF, f"data.path={path}"]), tmp_path / str(number))
        weights.append(load(tmp_path / str(number) / "checkpoints" / "last.ckpt")["state_dict"])
    for other in weights[1:]:
        assert all(bool((weights[0][name] == other[name]).all()) for name in weights[0])


def test_predictions_are_those_of_the_test(trained: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    process = forked(tmp_path, "predict", str(trained), str(table), "-o", str(out))
    assert process.returncode == 0, process.stderr
    assert process.stderr == "90 sequences of a.csv classified\n"
    found = pd.read_csv(out).set_index("id")
    assert found.index.tolist() == pd.read_csv(table)["id"].drop_duplicates().tolist()
    expected = pd.read_csv(trained / "predictions.csv").set_index("id")
    pd.testing.assert_frame_equal(found.loc[expected.index], expected)
    again = forked(tmp_path, "predict", str(trained), str(table), "-o", str(out))
    assert again.returncode == 2
    assert "is there already; name another file" in again.stderr


def test_a_file_of_any_size_is_predicted_in_parts(
    trained: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grulab.sequence_files import stream

    whole = forked(tmp_path, "predict", str(trained), str(table)).stdout
    pd.read_csv(table).to_parquet(tmp_path / "a.parquet", index=False)
    monkeypatch.setattr(stream, "_ROWS_TOGETHER", 7)
    for path in (table, tmp_path / "a.parquet"):
        assert forked(tmp_path, "predict", str(trained), str(path)).stdout == whole


def test_standard_input_and_output(trained: Path, table: Path) -> None:
    program = "import sys; from grulab.cli import main; sys.exit(main())"
    frame = pd.read_csv(table).drop(columns=["label", "split"]).assign(extra=1)[["b", "extra", "time", "id", "a"]]
    process = subprocess.run(
        [sys.executable, "-c", program, "predict", str(trained), "-"],
        input=frame.to_csv(index=False), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = pd.read_csv(io.StringIO(process.stdout)).set_index("id")
    assert list(found.columns) == ["prediction", "p_class8", "p_class9", "p_class10"]
    expected = pd.read_csv(trained / "predictions.csv").set_index("id")
    pd.testing.assert_frame_equal(found.loc[expected.index], expected.drop(columns="truth"))
    assert "note: standard input: extra: not used, because the model has not learned from it" in process.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.drop(columns="b"),
            "has no column b, which the model has learned from; it has id, time, a",
        ),
        (lambda d: d.sample(frac=1, random_state=0), "are not together; sort the file by id"),
        (
            lambda d: d.assign(a=np.where(d.index == 3, np.nan, d["a"])),
            "new.csv: row 5 (id s0), column a: a",
        ),
        (
            lambda d: d.assign(a=np.where(d.index == 3, np.inf, d["a"])),
            "row 5 (id s0), column a: the value is",
        ),
        (lambda d: d.assign(a=d["a"].astype(object).where(d.index != 3, "much")), "column a: 'much' is no number"),
        (lambda d: d.assign(time=0), "another row has the same id and time"),
        (lambda d: d.iloc[:0], "new.csv: holds no sequence"),
        (
            lambda d: d.assign(label=np.where(d.index == 3, "class8", "class9")),
            "row 5 (id s0): the label differs from the rows before",
        ),
        (
            lambda d: pd.DataFrame({";".join(d.columns): d.astype(str).agg(";".join, axis=1)}),
            "; a .csv is separated by commas",
        ),
    ],
)
def test_a_bad_file_is_refused_at_prediction(
    trained: Path, table: Path, tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    work = tmp_path / "work"
    work.mkdir()
    change(pd.read_csv(table)).to_csv(work / "new.csv", index=False)
    process = forked(work, "predict", str(trained), "new.csv", "-o", "out.csv")
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.count("\n") == 1
    assert [path.name for path in work.iterdir()] == ["new.csv"]


def test_fewer_and_more_features_in_a_file_without_names(tmp_path: Path) -> None:
    data = make(count=60, split=True)
    train(compose([*BRIEF, f"data.path={data.write(tmp_path / 'a.ts')}"]), tmp_path / "run")
    for width in (1, 3):
        write_ts(tmp_path / f"{width}.ts", [np.ones((4, width))], ["class8"], ["class8", "class9"])
        process = forked(tmp_path, "predict", "run", f"{width}.ts")
        assert process.returncode == 2
        assert f"has {width} features, and the model has learned from 2" in process.stderr


def test_a_ts_file_without_labels_is_predicted(tmp_path: Path) -> None:
    data = make(count=60, split=True)
    train(compose([*BRIEF, f"data.path={data.write(tmp_path / 'a.ts')}"]), tmp_path / "run")
    labelled = tmp_path / "a_TEST.ts"
    lines = labelled.read_text().splitlines()
    lines = ["@classLabel false" if line.startswith("@classLabel") else line for line in lines]
    bare = [line if line[0] in "#@" else line.rsplit(":", 1)[0] for line in lines]
    (tmp_path / "bare.ts").write_text("\n".join(bare))
    process = forked(tmp_path, "predict", "run", "bare.ts")
    assert process.returncode == 0, process.stderr
    found = pd.read_csv(io.StringIO(process.stdout))
    expected = pd.read_csv(io.StringIO(forked(tmp_path, "predict", "run", "a_TEST.ts").stdout))
    assert list(found["prediction"]) == list(expected["prediction"])
    pd.testing.assert_frame_equal(found, expected.drop(columns="truth"))


def test_evaluation_of_the_same_and_of_another_file(trained: Path, table: Path, tmp_path: Path) -> None:
    accuracy = json.loads((trained / "summary.json").read_text())["metrics"]["test/accuracy"]
    moved = tmp_path / "moved.csv"
    moved.write_bytes(table.read_bytes())
    for arguments in ([], [f"data.path={moved}"]):
        process = forked(tmp_path, "evaluate", str(trained), *arguments)
        assert process.returncode == 0, process.stderr
        assert "test split, which the model has not learned from" in process.stdout
        assert f"{accuracy:.4f}" in process.stdout
    other = make(count=30, seed=5).write(tmp_path / "other.csv")
    process = forked(tmp_path, "evaluate", str(trained), f"data.path={other}")
    assert process.returncode == 0, process.stderr
    assert "All 30 sequences of other.csv" in process.stdout
    data = make(count=30, seed=5)
    one = Data(data.sequences[:9], ["class9"] * 9).write(tmp_path / "one.csv")
    assert "All 9 sequences of one.csv" in forked(tmp_path, "evaluate", str(trained), f"data.path={one}").stdout
    unknown = make(count=30, classes=5).write(tmp_path / "unknown.csv")
    process = forked(tmp_path, "evaluate", str(trained), f"data.path={unknown}")
    assert process.returncode == 2
    assert "and the model knows class8, class9, class10" in process.stderr
    process = forked(tmp_path, "evaluate", str(trained), "model.hidden_size=3")
    assert "only data.path and data.labels can be named here" in process.stderr


def test_a_checkpoint_stands_alone(
    trained: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the run's folder, its file and the cache."""
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes())
    expected = forked(tmp_path, "predict", str(trained), str(table)).stdout
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert forked(tmp_path, "predict", "alone.ckpt", str(table)).stdout == expected
    assert not (tmp_path / "empty").exists()


def test_an_export_is_written_once(trained: Path, tmp_path: Path) -> None:
    process = forked(tmp_path, "export", str(trained), "model.onnx")
    assert process.returncode == 0, process.stderr
    assert "gives the same answers as" in process.stdout
    assert forked(tmp_path, "export", str(trained), "model.onnx").returncode == 2
    assert "end it with .onnx" in forked(tmp_path, "export", str(trained), "model.bin").stderr


def test_a_run_over_generated_sequences_has_no_file(tmp_path: Path, table: Path) -> None:
    train(compose(["trainer.max_epochs=1", "data.train_size=40", "trainer.accelerator=cpu"]), tmp_path / "run")
    assert not (tmp_path / "run" / "predictions.csv").exists()
    for arguments in (["predict", "run", str(table)], ["export", "run", "x.onnx"]):
        process = forked(tmp_path, *arguments)
        assert process.returncode == 2
        assert "has learned from generated sequences (data=sinusoids)" in process.stderr
    assert forked(tmp_path, "evaluate", "run").returncode == 0


def test_a_sweep_over_a_file_ends_with_a_verdict(tmp_path: Path, table: Path) -> None:
    arguments = ["train", "-m", *BRIEF, f"data.path={table}", "seed=0,1", "model.class_weights=none,balanced"]
    process = grulab(tmp_path, *arguments, "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert "Is a GRU worth it here?" in process.stdout
    assert "note: the run has 4 steps of the optimizer" in process.stdout
    assert "paired over" in process.stdout
    assert (tmp_path / "sweep" / "figures" / "confusion.png").is_file()
    report = (tmp_path / "sweep" / "report.html").read_text()
    assert "a logistic regression on each feature" in report
    assert "class10" in report


def test_an_inspection_tells_what_is_in_a_file(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = forked(tmp_path, "inspect", str(table))
    assert process.returncode == 0, process.stderr
    for words in ("90: ", "class10", "Baselines", "seconds an epoch", "a.csv has no val: made of its train"):
        assert words in process.stdout
    assert [path.name[:6] for path in (tmp_path / "outputs" / "inspect").iterdir()] == ["a.csv-"]
    odd = tmp_path / "it's,(odd)=.csv"
    odd.write_bytes(table.read_bytes())
    process = forked(tmp_path, "inspect", odd.name)
    following = shlex.split(process.stdout.rsplit("next    grulab train ", 1)[1])
    monkeypatch.chdir(tmp_path)
    assert compose(following).data.path == str(odd)  # type: ignore[attr-defined]
    holes = pd.read_csv(table)
    holes.loc[4, "a"] = np.nan
    holes.to_csv(tmp_path / "holes.csv", index=False)
    process = forked(tmp_path, "inspect", "holes.csv")
    assert process.returncode == 0, process.stderr
    assert "A run is refused as long as these are there" in process.stdout
    assert "row 6" in process.stdout


def test_a_run_of_few_steps_is_noted(table: Path, tmp_path: Path) -> None:
    process = forked(tmp_path, "train", *BRIEF, f"data.path={table}")
    assert "the run has 4 steps of the optimizer, which is hardly enough" in process.stdout
    process = forked(tmp_path, "train", *BRIEF, f"data.path={table}", "data.batch_size=1")
    assert "steps of the optimizer" not in process.stdout


def test_sequences_of_ones_own_in_python(tmp_path: Path) -> None:
    data = make(count=60)
    names = [f"mine-{number}" for number in range(60)]
    module = SequenceDataModule.from_arrays(data.sequences, data.labels, ids=names, feature_names=["u", "v"])
    summary = train(compose(["trainer.max_epochs=2", "trainer.accelerator=cpu"]), tmp_path / "run", module)
    assert summary["config"]["data"]["content"] == module.config.content  # type: ignore[attr-defined]
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert set(predictions["id"]) <= set(names)
    labels = dict(zip(names, data.labels, strict=True))
    assert (predictions["id"].map(labels) == predictions["truth"]).all()
    assert resume(tmp_path / "run", ["trainer.max_epochs=3"])["epochs"] == 3
    for sequences, labels_of, message in (
        ([], [], "holds no sequence"),
        ([np.ones((2, 2)), np.ones((2, 3))], ["a", "b"], "sequence 1 has 3 features, and sequence 0 has 2"),
        ([np.ones((2, 2))] * 4, ["a", "b"], "labels has the shape"),
        (["text"] * 4, ["a", "b"] * 2, "not \\(steps, features\\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            SequenceDataModule.from_arrays(sequences, labels_of)  # type: ignore[arg-type]
