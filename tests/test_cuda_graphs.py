"""Steps as CUDA graphs: with a stand-in for the graph on the CPU, and with graphs where there is CUDA."""

import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experiments.exact_resume.harness import differences
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grulab import resume
from grulab.config.compose import compose
from grulab.data.batch import PaddedBatch, rounded_length
from grulab.run_folder.checkpoint_file import KEY, load
from grulab.system.signals import Interrupted
from grulab.training import run as run_module
from grulab.training.cuda_graphs import GraphedSteps
from grulab.training.device import why_no_graphs
from grulab.training.module import SequenceClassifier
from grulab.training.optimizer import make_optimizer
from grulab.training.run import train
from tests.conftest import SMALL, grulab, interrupt_after

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
    monkeypatch.setattr(run_module, "has_graphs", lambda config, *_: config.trainer.cuda_graphs)
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


def test_a_run_that_is_stopped_inside_an_epoch_goes_on_with_the_same_bits(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own step, without a graph, is the first after a resume."""
    overrides = [*CASES["both, two layers, dropout"], *CASES["long"], "checkpoint.every_n_steps=2"]
    config = compose([*SMALL, f"trainer.accelerator={device}", *GRAPHS, *overrides])
    train(config, tmp_path / "whole")
    steps, original = [], GraphedSteps.__call__

    def crash(self: GraphedSteps, batch: PaddedBatch) -> Tensor:
        steps.append(len(batch.y))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GraphedSteps, "__call__", crash)
        with pytest.raises(BaseException):  # noqa: B017, PT011
            train(config, tmp_path / "stopped")
    assert load(tmp_path / "stopped" / "checkpoints" / "last.ckpt")[KEY]["batches"] > 0
    resume(tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_warming_up_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    torch.manual_seed(0)
    module = SequenceClassifier(5, 4, 2, 3, dropout=0.5, sequences="padded").train()
    optimizer = make_optimizer(module.parameters(), "adam", 0.1, 0.0, fused=True)
    graphs = GraphedSteps(module, optimizer, batch_size=2, longest=3)
    x = torch.randn(2, 3, 5)

    def everything() -> list[Tensor]:
        states = [value for state in optimizer.state.values() for value in state.values()]
        sums = [*module.train_metrics.sums().values()]
        return [value.detach().clone() for value in (*module.parameters(), *sums, *states, torch.get_rng_state())]

    # Before the first step, when Adam has no state, and after it.
    for _ in range(2):
        before = everything()
        graphs._warm_up(lambda: graphs._step(x))
        after = everything()
        assert len(after) >= len(before)
        assert all(map(torch.equal, before[:-1] if len(after) > len(before) else before, after))
        if len(after) > len(before):
            states = after[len(before) - 1 : -1]
            assert not any(value.any() for value in states)
            assert torch.equal(before[-1], after[-1])
        graphs._step(x)


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
        ("cuda", ["model.sequences=padded", "trainer.loop=lightning"], "the loop lightning; it needs fast"),
        ("cuda", ["model.sequences=padded", "data.train_size=31"], "data.batch_size=32, for there is no full batch"),
    ],
)
def test_what_keeps_steps_from_being_graphs_has_a_name(
    accelerator: str, overrides: list[str], expected: str | None
) -> None:
    config = compose(["trainer.cuda_graphs=true", *overrides])
    found = why_no_graphs(config, accelerator, config.trainer.loop)
    assert (found or "").startswith(expected or "")
    assert (found is None) == (expected is None)


def test_a_run_says_that_there_are_no_graphs(tmp_path: Path) -> None:
    train(compose([*SMALL, "trainer.accelerator=cpu", *GRAPHS]), tmp_path / "run")
    process = grulab(tmp_path, "train", *SMALL, "trainer.accelerator=cpu", *GRAPHS, "hydra.run.dir=other")
    assert "trainer.cuda_graphs=true has no effect with the cpu device" in process.stdout
    assert differences(tmp_path / "run", tmp_path / "other") == []
