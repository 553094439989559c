"""trainer.loop=fast and trainer.loop=lightning give the same weights, checkpoints and hook calls."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from grulab import SequenceClassifier, SequenceDataModule, resume
from grulab.config.compose import compose
from grulab.run_folder.checkpoint_file import load
from grulab.system.signals import Interrupted
from grulab.training.build import build_module
from grulab.training.callbacks.terminate_on_nan import TerminateOnNaN
from grulab.training.fast_loop import FastEpochLoop, use_fast_loop
from grulab.training.metrics import LossAndAccuracy
from grulab.training.run import train
from tests.conftest import SMALL, Start, grulab, interrupt_after


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(content, dict | list | tuple):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        return {key: value for name, part in pairs for key, value in flat(part, f"{prefix}/{name}").items()}
    return {prefix: content}


@pytest.fixture
def autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the step in C out, which has other last bits: see test_step.py."""
    monkeypatch.setattr("grulab.training.run.step_kind", lambda *arguments: "autograd")


@pytest.mark.usefixtures("autograd")
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.gradient_clip_val=0.1", "optimizer.algorithm=adamw", "optimizer.schedule=cosine"],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-mixed"],
        ["model.backend=torch"],
    ],
)
def test_a_run_is_the_same_bit_for_bit(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In other precisions than 32-true it is Lightning's own step."""
    config = compose([*SMALL, "checkpoint.every_n_steps=3", "trainer.accelerator=cpu", *overrides])
    optimize, steps = FastEpochLoop._optimize, []
    monkeypatch.setattr(FastEpochLoop, "_optimize", lambda *given: steps.append(given) or optimize(*given))
    assert train(config, tmp_path / "ours")["loop"] == "fast"
    assert bool(steps) == (config.trainer.precision == "32-true")
    steps.clear()
    lightnings = replace(config, trainer=replace(config.trainer, loop="lightning"))
    assert train(lightnings, tmp_path / "lightning")["loop"] == "lightning"
    assert not steps
    assert_same_checkpoints(tmp_path / "ours", tmp_path / "lightning")
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("ours", "lightning")]
    assert [row.rsplit(",", 1)[0] for row in rows[0]] == [row.rsplit(",", 1)[0] for row in rows[1]]


def assert_same_checkpoints(one: Path, other: Path) -> None:
    ours, theirs = (flat(load(run / "checkpoints" / "last.ckpt")) for run in (one, other))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if not key.endswith(("/seconds", "/trainer/loop")):
            same = torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
            assert same, key


@pytest.mark.usefixtures("autograd")
@pytest.mark.parametrize(("first", "then"), [("fast", "lightning"), ("lightning", "fast")])
def test_a_run_goes_on_exactly_with_the_other_loop(
    first: str, then: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            start("stopped", f"trainer.loop={first}")
    resume(tmp_path / "stopped", [f"trainer.loop={then}"])
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "stopped")


def test_a_version_that_was_not_tested_keeps_its_own_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FastEpochLoop, "advance", lambda *_: pytest.fail("the fast loop ran"))
    monkeypatch.setattr("grulab.internals.lightning.TESTED_VERSIONS", ("2.6.4", "2.6.5"))
    assert train(compose(SMALL), tmp_path / "fast")["loop"] == "lightning"
    (line,) = [record.message for record in caplog.records if "trainer.loop" in record.message]
    assert line.startswith(f"trainer.loop=fast was tested with Lightning 2.6.4, 2.6.5 and not with {L.__version__}: ")
    caplog.clear()
    train(compose([*SMALL, "trainer.loop=lightning"]), tmp_path / "lightning")
    assert not [record for record in caplog.records if "trainer.loop" in record.message]


def test_a_version_without_the_private_loop_trains(tmp_path: Path) -> None:
    """A new version of Lightning may lack the private parts; nothing but the fast loop may import them."""
    program = """
import sys
import lightning.pytorch.loops.training_epoch_loop as loops, lightning.pytorch.loops.fetchers as fetchers
import lightning
lightning.__version__ = "2.7.0"
for module, name in ((loops, "_TrainingEpochLoop"), (fetchers, "_DataFetcher")):
    delattr(module, name)
from grulab.cli import main
sys.exit(main(sys.argv[1:]))
"""
    process = grulab(tmp_path, "train", *SMALL, "hydra.run.dir=run", program=program)
    assert process.returncode == 0, process.stderr
    assert "was tested with Lightning 2.6.6 and not with 2.7.0: Lightning's own loop runs" in process.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["loop"] == "lightning"


class Listener(L.Callback):
    """Records every hook call of a training step, with the trainer's counters at that moment."""

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
    for name in ("fast", "lightning"):
        listener = Listener()
        # The listener replaces a callback that every run has.
        with monkeypatch.context() as patch:
            patch.setattr("grulab.training.run.TerminateOnNaN", lambda listener=listener: listener)
            train(compose([*SMALL, "trainer.accelerator=cpu", f"trainer.loop={name}"]), tmp_path / name)
        heard.append(listener.heard)
    assert len(heard[0]) > 20
    assert heard[0] == heard[1]


def test_hooks_that_do_nothing_are_not_called() -> None:
    callback = TerminateOnNaN()
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", callbacks=[callback])
    use_fast_loop(trainer, SequenceClassifier(5, 4, 1, 3))
    assert callback.on_train_batch_end is None
    assert callable(callback.on_before_backward)
    assert callable(callback.on_validation_end)
    # Callbacks of other trainers keep their hooks.
    assert callable(TerminateOnNaN().on_train_batch_end)


def test_without_the_fast_loop_callbacks_find_the_metrics(tmp_path: Path) -> None:
    """Under a plain Trainer, Lightning's callbacks read the metrics that the module logs."""
    config = compose(SMALL)
    datamodule = SequenceDataModule(config.data, 0)
    module = build_module(config, datamodule.task)
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=datamodule)
    assert best.best_model_score == pytest.approx(module.val_metrics.compute()["loss"])
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= trainer.callback_metrics.keys()


def test_means_are_those_of_all_batches_also_when_asked_for_in_between() -> None:
    means = LossAndAccuracy()
    for loss, size in ((1.0, 2), (4.0, 1)):
        means.add(torch.tensor(loss), torch.tensor([[0.0, 1.0]] * size), torch.tensor([1] * size))
        last = means.compute()
    assert last == {"loss": 2.0, "accuracy": 1.0}
    means.reset()
    means.update(torch.tensor(3.0), torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert means.compute() == {"loss": 3.0, "accuracy": 0.0}
