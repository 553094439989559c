"""Steps as CUDA graphs: with a stand-in for the graph on the CPU, and with graphs where there is CUDA."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from experiments.exact_resume.harness import differences
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grulab import resume
from grulab.config.compose import compose
from grulab.data.batch import PaddedBatch, rounded_length
from grulab.run_folder.checkpoint_file import load
from grulab.system.signals import Interrupted
from grulab.training import run as run_module
from grulab.training.cuda_graphs import GraphedSteps
from grulab.training.device import device_notes, why_no_graphs
from grulab.training.run import train
from tests.conftest import SMALL, interrupt_after

GRAPHS = ["trainer.cuda_graphs=true", "model.sequences=padded"]
CASES = {
    "default": [],
    "both, two layers, dropout": ["model.num_layers=2", "model.bidirectional=true", "model.dropout=0.3"],
    "cosine, adamw": ["optimizer.schedule=cosine", "optimizer.algorithm=adamw"],
    "long": ["data.min_length=30", "data.max_length=50"],
}


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where graphs run: on the CPU, a graph is replaced by the step that it would hold."""
    if torch.cuda.is_available() and request.config.getoption("--accelerator") == "cuda":
        return "cuda"

    def captured(self: GraphedSteps, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return step

    monkeypatch.setattr(GraphedSteps, "_captured", captured)
    monkeypatch.setattr(GraphedSteps, "_warm_up", lambda self, step: setattr(self, "_pool", 0))
    monkeypatch.setattr(run_module, "why_no_graphs", lambda config, accelerator: None)
    return "cpu"


def steps_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every batch one that has no graph."""
    original = GraphedSteps.__init__

    def without(self: GraphedSteps, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        self.batch_size = -1

    monkeypatch.setattr(GraphedSteps, "__init__", without)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_has_the_bits_of_the_same_step_without_one(
    case: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*SMALL, f"trainer.accelerator={device}", *GRAPHS, *CASES[case]])
    replayed = []
    call = GraphedSteps.__call__

    def counted(self: GraphedSteps, batch: PaddedBatch) -> Tensor:
        replayed.append(len(batch.y))
        return call(self, batch)

    monkeypatch.setattr(GraphedSteps, "__call__", counted)
    train(config, tmp_path / "graphs")
    assert replayed
    assert set(replayed) == {config.data.batch_size}
    steps_without_graphs(monkeypatch)
    count = len(replayed)
    train(config, tmp_path / "alone")
    assert len(replayed) == count
    assert differences(tmp_path / "alone", tmp_path / "graphs") == []


def test_a_stopped_run_goes_on_with_the_same_bits(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*SMALL, f"trainer.accelerator={device}", *GRAPHS, *CASES["both, two layers, dropout"]])
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, epoch=1, signum=signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_a_checkpoint_tells_nothing_of_graphs(device: str, tmp_path: Path) -> None:
    train(compose([*SMALL, f"trainer.accelerator={device}", *GRAPHS]), tmp_path / "run")
    (group,) = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["capturable"]) == (0.02, False)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].split(",")[rows[0].split(",").index("lr")] == "0.02"


def test_a_batch_is_lengthened_with_padding() -> None:
    batch = PaddedBatch(torch.randn(2, 33, 5), torch.tensor([33, 20]), torch.tensor([0, 1]))
    lengthened = batch.lengthened()
    assert lengthened.x.shape == (2, 34, 5)
    assert torch.equal(lengthened.x[:, :33], batch.x)
    assert batch.lengthened().lengthened().x.shape == (2, 34, 5)


@given(st.integers(1, 100_000))
def test_there_are_few_lengths_and_none_is_much_longer(steps: int) -> None:
    rounded = rounded_length(steps)
    assert steps <= rounded <= steps * 17 / 16 + 1
    assert rounded_length(rounded) == rounded
    if steps <= 32:
        assert rounded == steps
    lengths = {rounded_length(length) for length in range(steps // 2 + 1, steps + 1)} if steps < 2000 else set()
    assert len(lengths) <= 33


@pytest.mark.parametrize(
    ("accelerator", "overrides", "expected"),
    [
        ("cuda", ["model.sequences=padded"], None),
        ("cpu", ["model.sequences=padded"], "the cpu device"),
        ("cuda", [], "model.sequences=auto; it needs padded"),
        ("cuda", ["model.sequences=padded", "trainer.precision=bf16-mixed"], "trainer.precision=bf16-mixed"),
        ("cuda", ["model.sequences=padded", "trainer.gradient_clip_val=1"], "trainer.gradient_clip_val=1"),
        ("cuda", ["model.sequences=padded", "trainer.loop=lightning"], "trainer.loop=lightning; it needs fast"),
    ],
)
def test_where_there_are_no_graphs_a_note_says_so(
    accelerator: str, overrides: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    config = compose(["trainer.cuda_graphs=true", *overrides])
    found = why_no_graphs(config, accelerator)
    assert (found or "").startswith(expected or "")
    assert (found is None) == (expected is None)
    notes = list(device_notes(config, accelerator))
    assert notes == ([f"trainer.cuda_graphs=true has no effect with {found}"] if found else [])
