"""A step of our loop is a step of Lightning's: the same weights, the same checkpoints, the same hooks."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from grulab.config.compose import compose
from grulab.run_folder.checkpoint_file import load
from grulab.training.callbacks.terminate_on_nan import TerminateOnNaN
from grulab.training.fast_loop import FastEpochLoop
from grulab.training.metrics import LossAndAccuracy
from grulab.training.run import train
from tests.conftest import SMALL


def by_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastEpochLoop, "advance", _TrainingEpochLoop.advance)


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(content, dict | list | tuple):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        return {key: value for name, part in pairs for key, value in flat(part, f"{prefix}/{name}").items()}
    return {prefix: content}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.gradient_clip_val=0.1", "optimizer.algorithm=adamw", "optimizer.schedule=cosine"],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-mixed"],
    ],
)
def test_a_run_is_the_same_bit_for_bit(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([*SMALL, "checkpoint.every_n_steps=3", "trainer.accelerator=cpu", *overrides])
    """In other precisions than 32-true it is Lightning's own step."""
    optimize, steps = FastEpochLoop._optimize, []
    monkeypatch.setattr(FastEpochLoop, "_optimize", lambda *given: steps.append(given) or optimize(*given))
    train(config, tmp_path / "ours")
    assert bool(steps) == (config.trainer.precision == "32-true")
    by_lightning(monkeypatch)
    train(config, tmp_path / "lightning")
    ours, theirs = (flat(load(tmp_path / name / "checkpoints" / "last.ckpt")) for name in ("ours", "lightning"))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if not key.endswith("/seconds"):
            same = torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
            assert same, key


class Listener(L.Callback):
    """Notes every hook of a step that is called, and the counters that a callback can see there."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.note("start", trainer, batch_idx, len(batch.y))

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.note("zero grad", trainer, type(optimizer))

    def on_before_backward(self, trainer: L.Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        self.note("backward", trainer, float(loss.detach()), loss.requires_grad)

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.note("gradients", trainer)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.note("step", trainer, float(pl_module.model.head.weight.grad.norm()))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.note("end", trainer, batch_idx, float(outputs["loss"]), outputs["loss"].requires_grad)

    def note(self, *what: Any) -> None:
        name, trainer, *rest = what
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        self.heard.append(
            (name, trainer.global_step, trainer.current_epoch, str(progress), trainer.is_last_batch, *rest)
        )


def test_every_hook_of_a_callback_is_called_as_by_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    for name in ("ours", "lightning"):
        listener = Listener()
        # In the place of one that every run has.
        with monkeypatch.context() as patch:
            patch.setattr("grulab.training.run.TerminateOnNaN", lambda listener=listener: listener)
            if name == "lightning":
                by_lightning(patch)
            train(compose([*SMALL, "trainer.accelerator=cpu"]), tmp_path / name)
        heard.append(listener.heard)
    assert len(heard[0]) > 20
    assert heard[0] == heard[1]


def test_hooks_that_do_nothing_are_not_called() -> None:
    assert TerminateOnNaN.on_train_batch_end is None
    assert callable(TerminateOnNaN.on_before_backward)
    assert callable(TerminateOnNaN.on_validation_end)


def test_means_are_those_of_all_batches_also_when_asked_for_in_between() -> None:
    means = LossAndAccuracy()
    for loss, size in ((1.0, 2), (4.0, 1)):
        means.add(torch.tensor(loss), torch.tensor([[0.0, 1.0]] * size), torch.tensor([1] * size))
        last = means.compute()
    assert last == {"loss": 2.0, "accuracy": 1.0}
    means.reset()
    means.update(torch.tensor(3.0), torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert means.compute() == {"loss": 3.0, "accuracy": 0.0}
