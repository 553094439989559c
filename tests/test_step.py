"""A training step in C: the numbers of autograd and torch's optimizers, the same state, the same random numbers."""

import copy
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from grulab import resume
from grulab.config.compose import compose
from grulab.kernels import fused, library
from grulab.kernels.fused import FusedGRU
from grulab.kernels.step import TrainingStep
from grulab.system.signals import Interrupted
from grulab.training.callbacks.terminate_on_nan import NonFiniteLossError
from grulab.training.module import SequenceClassifier
from grulab.training.optimizer import make_optimizer
from grulab.training.run import train
from tests.conftest import SMALL, Start, interrupt_after

pytestmark = pytest.mark.skipif(not library.is_built(), reason="the kernels are not built")

Batch = tuple[Tensor, Tensor, Tensor]


def batches(count: int, size: int, steps: int, features: int, classes: int, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        lengths = torch.randint(1, steps + 1, (size,), generator=generator).sort(descending=True)[0]
        x = torch.randn(size, int(lengths[0]), features, generator=generator)
        # The padding may hold anything.
        for row, length in enumerate(lengths.tolist()):
            x[row, length:] = math.nan
        found.append((x, lengths, torch.randint(0, classes, (size,), generator=generator)))
    return found


class Classifier(nn.Module):
    def __init__(self, gru: nn.GRU, head: nn.Linear) -> None:
        super().__init__()
        self.gru, self.head = gru, head

    def loss(self, batch: Batch, weights: Tensor | None) -> Tensor:
        x, lengths, y = batch
        _, h_n = self.gru(pack_padded_sequence(x.to(self.head.weight.dtype), lengths, batch_first=True))
        last = torch.cat((h_n[-2], h_n[-1]), dim=1) if self.gru.bidirectional else h_n[-1]
        own = None if weights is None else weights.to(last.dtype)
        loss: Tensor = nn.functional.cross_entropy(self.head(last), y, weight=own, reduction="none").mean()
        return loss


def make(features: int, hidden: int, layers: int, both: bool, classes: int, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    gru = FusedGRU(features, hidden, layers, batch_first=True, bidirectional=both, dropout=dropout)
    return Classifier(gru, nn.Linear(hidden * (1 + both), classes))


def plain(model: Classifier, dtype: torch.dtype) -> Classifier:
    """Return the same model with nn.GRU."""
    own = model.gru
    gru = nn.GRU(
        own.input_size, own.hidden_size, own.num_layers, batch_first=True, bidirectional=own.bidirectional,
        dropout=own.dropout,
    )  # fmt: skip
    gru.load_state_dict(own.state_dict())
    return Classifier(gru, copy.deepcopy(model.head)).to(dtype)


def train_plainly(
    model: Classifier, data: Sequence[Batch], algorithm: str, decay: float, clip: float | None, weights: Tensor | None
) -> torch.optim.Optimizer:
    optimizer = make_optimizer(model.parameters(), algorithm, 0.01, decay, fused=True)  # type: ignore[arg-type]
    for batch in data:
        optimizer.zero_grad()
        model.loss(batch, weights).backward()  # type: ignore[no-untyped-call]
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return optimizer


def step_of(
    model: Classifier, algorithm: str = "adam", decay: float = 0.0, clip: float | None = None,
    weights: Tensor | None = None,
) -> TrainingStep:  # fmt: skip
    optimizer = make_optimizer(model.parameters(), algorithm, 0.01, decay, fused=True)  # type: ignore[arg-type]
    return TrainingStep(model.gru, model.head, optimizer, clip, weights)  # type: ignore[arg-type]


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a.detach().double() - b.detach().double()).abs().max()) for a, b in pairs)


def test_a_hundred_steps_are_as_near_to_64_bits_as_torchs() -> None:
    """Over random options. The error of one training is a matter of luck: its ratio to that of torch is 0.4 to 16,
    with the gradients of the kernels in autograd too. A systematic error would show in the mean.
    """
    generator = random.Random(0)
    logarithms = []
    for seed in range(40):
        both, layers, classes = generator.random() < 0.5, generator.randint(1, 3), generator.randint(2, 9)
        model = make(generator.randint(1, 6), generator.randint(1, 20), layers, both, classes)
        algorithm, decay = generator.choice(["adam", "adamw"]), generator.choice([0.0, 0.01])
        clip, weights = generator.choice([None, 0.5]), generator.choice([None, torch.linspace(0.5, 1.5, classes)])
        data = batches(100, generator.randint(1, 20), generator.randint(1, 12), model.gru.input_size, classes, seed)
        exact, torchs = plain(model, torch.float64), plain(model, torch.float32)
        train_plainly(exact, data, algorithm, decay, clip, weights)
        train_plainly(torchs, data, algorithm, decay, clip, weights)
        step = step_of(model, algorithm, decay, clip, weights)
        for batch in data:
            assert step(*batch).isfinite()
        logarithms.append(math.log(distance(model, exact) / distance(torchs, exact)))
    assert math.exp(statistics.mean(logarithms)) < 1.5
    assert math.exp(max(logarithms)) < 30


def test_the_gradient_of_a_class_that_is_certain_keeps_its_digits() -> None:
    """As the difference of a probability near 1 and 1 it would have few."""
    model = make(2, 6, 1, False, 3)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([12.0, 0.0, 0.5]))
    exact = plain(model, torch.float64)
    step = step_of(model)
    ((x, lengths, y),) = batches(1, 9, 5, 2, 3)
    exact.loss((x, lengths, torch.zeros_like(y)), None).backward()  # type: ignore[no-untyped-call]
    step(x, lengths, torch.zeros_like(y))
    assert exact.head.bias.grad is not None
    torch.testing.assert_close(step._gradients[-1].double(), exact.head.bias.grad, rtol=1e-5, atol=0)


def test_the_state_is_that_of_torchs_optimizer() -> None:
    model = make(3, 5, 2, True, 4)
    torchs = plain(model, torch.float32)
    data = batches(20, 7, 6, 3, 4)
    optimizer = train_plainly(torchs, data, "adam", 0.0, None, None)
    step = step_of(model)
    for batch in data:
        step(*batch)
    ours, theirs = step._optimizer.state_dict(), optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for place, state in theirs["state"].items():
        assert ours["state"][place].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(ours["state"][place][name], value, rtol=1e-3, atol=1e-6)
    # Either goes on from the other's.
    step._optimizer.load_state_dict(theirs)
    step.begin()
    assert step.steps == 20


def test_loss_and_hits_are_those_of_the_batch_before_the_step() -> None:
    model = make(3, 8, 1, False, 3)
    step = step_of(model)
    for x, lengths, y in batches(20, 9, 6, 3, 3):
        before = plain(model, torch.float32)
        loss = before.loss((x, lengths, y), None)
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        right = int((before.head(before.gru(packed)[1][-1]).argmax(dim=1) == y).sum())
        torch.testing.assert_close(step(x, lengths, y), loss.detach())
        assert step.hits == right


def test_dropout_draws_what_torch_draws() -> None:
    model = make(3, 16, 3, True, 3, dropout=0.4)
    torchs = plain(model, torch.float32)
    torchs.gru = copy.deepcopy(model.gru)
    data = batches(10, 9, 6, 3, 3)
    step = step_of(model)
    torch.manual_seed(7)
    for batch in data:
        step(*batch)
    ours = torch.get_rng_state()
    torch.manual_seed(7)
    train_plainly(torchs, data, "adam", 0.0, None, None)
    assert torch.equal(torch.get_rng_state(), ours)
    assert distance(model, torchs) < 1e-4


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_every_vector_width_learns_the_same(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if lanes > fused.widest_lanes():
        pytest.skip("this machine has no such vectors")
    data = batches(20, 9, 6, 3, 3)
    model, other = make(3, 13, 2, True, 3), make(3, 13, 2, True, 3)
    step, widest = step_of(model, clip=0.5), step_of(other, clip=0.5)
    step._lanes = lanes
    for batch in data:
        step(*batch)
        widest(*batch)
    # Without fused multiply-adds, the last bits differ.
    if lanes == 4:
        assert distance(model, other) < 1e-5
    else:
        assert distance(model, other) == 0.0


def test_the_same_data_give_the_same_bits() -> None:
    ends = []
    for _ in range(2):
        model = make(4, 17, 2, True, 3)
        step = step_of(model)
        for batch in batches(10, 9, 30, 4, 3):
            step(*batch)
        ends.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(value: float) -> None:
    model = make(3, 8, 2, False, 3)
    step = step_of(model)
    (x, lengths, y), *_ = batches(1, 9, 6, 3, 3)
    step(x, lengths, y)
    with torch.no_grad():
        model.head.bias[1] = value
    before = copy.deepcopy((model.state_dict(), step._optimizer.state_dict()["state"]))
    assert not step(x, lengths, y).isfinite()
    after = (model.state_dict(), step._optimizer.state_dict()["state"])
    assert all(torch.equal(before[0][k].nan_to_num(), after[0][k].nan_to_num()) for k in before[0])
    assert all(torch.equal(before[1][p][k], after[1][p][k]) for p in before[1] for k in before[1][p])


@pytest.mark.parametrize(
    ("lengths", "y"), [([2, 3], [0, 1]), ([3, 0], [0, 1]), ([9, 1], [0, 1]), ([3, 2], [0, 3]), ([3, 2], [-1, 0])]
)
def test_what_is_not_valid_is_refused(lengths: list[int], y: list[int]) -> None:
    step = step_of(make(3, 8, 1, False, 3))
    with pytest.raises(ValueError, match="a length is not from 1 to time"):
        step(torch.zeros(2, 3, 3), torch.tensor(lengths), torch.tensor(y))
    with pytest.raises(ValueError, match=r"x is torch\.float32 of shape"):
        step(torch.zeros(2, 3, 4), torch.tensor([3, 2]), torch.tensor([0, 1]))


def test_a_run_says_how_it_has_stepped(tmp_path: Path) -> None:
    for name, overrides, kind in [
        ("default", [], "fused"),
        ("lightning", ["trainer.loop=lightning"], "autograd"),
        ("torch", ["model.backend=torch"], "autograd"),
        ("double", ["trainer.precision=64-true"], "autograd"),
    ]:
        summary = train(compose([*SMALL, *overrides]), tmp_path / name)
        assert summary["step"] == kind
        assert json.loads((tmp_path / name / "summary.json").read_text())["step"] == kind


def test_every_batch_takes_the_step_in_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceClassifier, "training_loss", lambda *arguments: pytest.fail("autograd ran"))
    train(
        compose([*SMALL, "model.num_layers=2", "model.dropout=0.2", "model.class_weights=balanced"]), tmp_path / "run"
    )


def test_a_diverging_run_names_its_step(tmp_path: Path) -> None:
    config = compose([*SMALL, "data.train_size=400", "optimizer.lr=3e37"])
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step \d+"):
        train(config, tmp_path / "run")


def test_going_on_with_another_kind_of_step_says_so(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            start("stopped")
    resume(tmp_path / "stopped", ["trainer.loop=lightning"])
    assert "training steps were fused, and are autograd from here on" in caplog.text
