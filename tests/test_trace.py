"""The trace agrees with the model's computation and with the metrics."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grulab import SequenceClassifier, SequenceDataModule, trace
from grulab.config.compose import compose
from grulab.config_error import ConfigError
from grulab.report.training_trace import observe
from tests.conftest import Run


def table(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({name.replace("_", "/"): values for name, values in columns.items()})


@pytest.mark.parametrize(
    "overrides",
    [[], ["model.bidirectional=true", "model.num_layers=2"], ["data=temporal_order", "data.level=moderate"]],
    ids=["default", "deep", "long"],
)
def test_a_run_is_traced(run: Run, tmp_path: Path, overrides: list[str]) -> None:
    run("run", *overrides)
    folder = trace(tmp_path / "run", sequence=2)
    assert folder == tmp_path / "run" / "trace"
    text = (folder / "trace.md").read_text()
    for title in ("Data flow", "Training trace", "Prediction trace", "Class probabilities"):
        assert f"## {title}" in text
    with Image.open(folder / "hidden_states.png") as picture:
        assert picture.width > 800
        assert np.asarray(picture.convert("RGB")).std() > 20
    found = EventAccumulator(str(folder))
    found.Reload()
    assert found.Tags()["images"] == ["trace/hidden_states"]
    # A second trace replaces the first one and is the same.
    trace(tmp_path / "run", sequence=2)
    assert (folder / "trace.md").read_text() == text
    assert len(list(folder.glob("events*"))) == 1


def test_shapes_and_answer_are_the_models(run: Run, tmp_path: Path) -> None:
    run("run", "model.bidirectional=true")
    text = (trace(tmp_path / "run", sequence=7) / "trace.md").read_text()
    config = compose(["data.test_size=40"])
    split = SequenceDataModule(config.data, 0).split("test")
    batch = split[np.arange(32)]
    steps, total = int(batch.lengths.max()), int(batch.lengths.sum())
    for shape in (f"(32, {steps}, 5)", f"({total}, 5)", f"(32, {steps}, 16)", "(32, 16)", "(32, 3)"):
        assert shape in text, shape
    module = SequenceClassifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").eval()
    x, lengths, y = split[np.array([7])]
    probabilities = module(x, lengths).softmax(1)[0]
    answer = int(probabilities.argmax())
    assert f"says class {answer} with probability {probabilities[answer]:.3f}; the truth is class {int(y)}" in text


def test_observations_follow_from_the_numbers() -> None:
    remarks = observe(
        table(
            train_loss=[1.1, 0.8, 0.6, 0.7, 0.1],
            val_loss=[1.1, 0.8, 0.9, 0.7, 0.1],
            val_accuracy=[0.34, 0.65, 0.60, 0.70, 0.995],
        ),
        chance=1 / 3,
        ceiling=1.0,
    )
    assert remarks == [
        "no better than chance",
        "48% of the way to the ceiling; val loss fell by 27%; best so far",
        "40% of the way to the ceiling; train loss falls, val loss rises",
        "55% of the way to the ceiling; train loss rose by 0.100; best so far",
        "at the ceiling; val loss fell by 86%; best so far",
    ]


@pytest.mark.parametrize("ceiling", [None, 1 / 3, 1 / 3 + 1e-12])
def test_without_a_ceiling_above_chance_nothing_is_divided(ceiling: float | None) -> None:
    epochs = table(train_loss=[1.1, 0.8], val_loss=[1.1, 0.8], val_accuracy=[0.33, 0.65])
    assert observe(epochs, 1 / 3, ceiling) == [
        "no better than chance",
        "0.317 above chance; val loss fell by 27%; best so far",
    ]


def test_a_checkpoint_alone_is_enough(run: Run, tmp_path: Path) -> None:
    run("run")
    alone = tmp_path / "elsewhere" / "mine.ckpt"
    alone.parent.mkdir()
    (tmp_path / "run" / "checkpoints" / "best.ckpt").rename(alone)
    folder = trace(alone)
    assert folder == alone.with_name("mine_trace")
    assert "there is no metrics.csv" in (folder / "trace.md").read_text()


def test_a_path_is_the_same_from_wherever(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("run")
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    assert trace("best.ckpt") == tmp_path / "run" / "trace"


def test_the_picture_shows_the_states(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("run", "model.bidirectional=true")
    drawn: dict[str, np.ndarray] = {}

    def keep(path: Path, states: np.ndarray, prefixes: np.ndarray, probabilities: np.ndarray, *rest: int) -> None:
        drawn.update(states=states, prefixes=prefixes, probabilities=probabilities)
        Image.new("RGB", (4, 4)).save(path)

    monkeypatch.setattr("grulab.report.trace_figures.hidden_states", keep)
    trace(tmp_path / "run", sequence=3)
    module = SequenceClassifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").eval()
    batch = SequenceDataModule(compose(["data.test_size=40"]).data, 0).split("test")[np.array([3])]
    states, _ = module.model.hidden_states(batch.x, batch.lengths)
    np.testing.assert_allclose(drawn["states"], states[0].detach(), atol=1e-6)
    for length, row in zip(drawn["prefixes"], drawn["probabilities"], strict=True):
        alone = module(batch.x[:, :length], torch.tensor([length])).softmax(1)
        np.testing.assert_allclose(row, alone[0].detach(), atol=1e-6)


def test_what_cannot_be_traced_is_named(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ConfigError, match="missing: no such file or folder"):
        trace(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"holds no checkpoints/best.ckpt"):
        trace(tmp_path)
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match=r"broken.ckpt: is damaged, or not a checkpoint of grulab"):
        trace(broken)
    torch.save({"weights": torch.zeros(1)}, broken)
    with pytest.raises(ConfigError, match=r"or not a checkpoint of grulab"):
        trace(broken)
    run("run")
    with pytest.raises(ConfigError, match=r"--sequence 40: choose from 0 to 39"):
        trace(tmp_path / "run", sequence=40)
