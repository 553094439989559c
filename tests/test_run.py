"""A single run: the files in its folder, and the correctness of the numbers in them."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from experiments.exact_resume.harness import differences

from grulab import SequenceClassifier, SequenceDataModule
from grulab.config.compose import compose
from grulab.config_error import ConfigError
from grulab.data.sampler import ResumableBatchSampler, training_batches
from grulab.run_folder.metrics_csv import COLUMNS
from grulab.run_folder.summary import git_state
from grulab.training.callbacks.terminate_on_nan import NonFiniteLossError, TerminateOnNaN
from grulab.training.run import train
from tests.conftest import SMALL, Run

PLAIN = (bool, int, float, str, bytes, type(None), torch.Tensor)


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def leaves(value: Any) -> Iterator[Any]:
    if type(value) in (dict,) or type(value).__name__ == "OrderedDict":
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif type(value) in (list, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_the_folder_holds_what_the_contract_says(run: Run, tmp_path: Path) -> None:
    summary = run("run")
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"checkpoints", "tensorboard", "metrics.csv", "summary.json", ".owner"}
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "last-previous.ckpt",
    }
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["error"] is None
    assert summary["seed"] == 0
    assert summary["config_hash"] == compose(SMALL).hash()
    assert summary["parameters"] == 3 * 8 * (5 + 8) + 6 * 8 + 3 * (8 + 1)
    # The recorded version may lack a local suffix such as +cpu.
    assert torch.__version__.startswith(summary["versions"]["torch"].partition("+")[0])
    assert summary["seconds"] > 0
    table = rows(tmp_path / "run")
    assert tuple(table[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "3"), ("2", "6")]
    assert {row["lr"] for row in table} == {"0.02"}


def test_the_same_seed_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    """Weights, optimizer, metrics.csv, TensorBoard and summary are equal, with and without loader processes."""
    stochastic = ["model.num_layers=2", "model.dropout=0.3"]
    for name, overrides in {"a": [], "b": [], "workers": ["data.num_workers=2"], "other": ["seed=1"]}.items():
        run(name, *stochastic, *overrides)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    found = differences(tmp_path / "a", tmp_path / "workers")
    assert {line for line in found if "config" not in line} == set()
    found = differences(tmp_path / "a", tmp_path / "other")
    assert {"last.ckpt: state_dict", "metrics.csv", "TensorBoard"} <= set(found)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_the_plan_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """No epoch's order is repeated or skipped, with or without prefetching."""
    original, drawn = ResumableBatchSampler.__iter__, []

    def noting(self: ResumableBatchSampler) -> Iterator[np.ndarray]:
        batches = list(original(self))
        if len(self) == 3:  # training; validation and test have two batches
            drawn.append([tuple(batch) for batch in batches])
        return iter(batches)

    monkeypatch.setattr(ResumableBatchSampler, "__iter__", noting)
    run("run", "trainer.max_epochs=4", f"data.num_workers={workers}", "seed=3")
    lengths_of = SequenceDataModule(compose(SMALL).data, 3).split("train").lengths_of
    expected = [[tuple(batch) for batch in training_batches(lengths_of, 65, 32, 3, epoch)] for epoch in range(4)]
    # Lightning may create an extra iterator before the first epoch, so only the last four count.
    assert drawn[-4:] == expected
    assert drawn[:-4] in ([], [expected[0]])


def test_seed_0_is_a_seed(run: Run) -> None:
    torch.manual_seed(123)
    first = run("first", "seed=0")
    torch.manual_seed(456)
    assert run("second", "seed=0")["metrics"] == first["metrics"]


def test_epoch_means_are_exact(run: Run, tmp_path: Path) -> None:
    """The means equal those of a float64 pass, sequence by sequence, although the last batch holds one sequence."""
    summary = run("run", "trainer.max_epochs=1", "checkpoint.monitor=val/loss")
    config = compose(SMALL)
    assert config.data.val_size % config.data.batch_size == 1
    module = SequenceClassifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").double().eval()
    data = SequenceDataModule(config.data, config.seed)
    for split in ("val", "test"):
        losses, right = [], []
        for index in range(len(data.split(split))):
            x, lengths, y = data.split(split)[np.array([index])]
            logits = module(x.double(), lengths)
            losses.append(torch.nn.functional.cross_entropy(logits, y).item())
            right.append(bool(logits.argmax() == y))
        assert math.isclose(summary["metrics"][f"{split}/loss"], np.mean(losses), abs_tol=1e-6)
        assert summary["metrics"][f"{split}/accuracy"] == np.mean(right)


def test_every_epoch_has_means_of_its_own(run: Run, tmp_path: Path) -> None:
    """With a learning rate too small to change a weight, every epoch's means equal those of the untrained model."""
    run("run", "trainer.max_epochs=3", "optimizer.lr=1e-30")
    config = compose(SMALL)
    torch.manual_seed(config.seed)
    module = SequenceClassifier(5, 8, 1, 3).eval()
    data = SequenceDataModule(config.data, config.seed)
    for split, size in (("train", 65), ("val", 33)):
        x, lengths, y = data.split(split)[np.arange(size)]
        logits = module(x, lengths)
        loss = torch.nn.functional.cross_entropy(logits, y).item()
        accuracy = (logits.argmax(1) == y).float().mean().item()
        for row in rows(tmp_path / "run"):
            assert math.isclose(float(row[f"{split}/loss"]), loss, abs_tol=1e-6)
            assert math.isclose(float(row[f"{split}/accuracy"]), accuracy, abs_tol=1e-6)
    *_, last = training_batches(data.split("train").lengths_of, 65, 32, 0, 0)
    assert len(last) == 1


def test_last_moves_forward_while_the_metric_gets_worse(run: Run, tmp_path: Path) -> None:
    summary = run("run", "trainer.max_epochs=6", "optimizer.lr=3.0", "checkpoint.monitor=val/loss")
    losses = [float(row["val/loss"]) for row in rows(tmp_path / "run")]
    best = int(np.argmin(losses)) + 1
    assert best < 6, "the learning rate was meant to spoil the run"
    best_ckpt, last_ckpt = (checkpoint(tmp_path / "run" / "checkpoints" / f"{n}.ckpt") for n in ("best", "last"))
    assert (best_ckpt["epoch"] + 1, last_ckpt["epoch"] + 1) == (best, 6)
    assert summary["best_epoch"] == best
    assert summary["metrics"]["val/loss"] == min(losses)
    assert last_ckpt["callbacks"]["Checkpointer"]["best_score"] == min(losses)


def test_the_final_epoch_is_kept_however_rarely_others_are(run: Run, tmp_path: Path) -> None:
    run("run", "trainer.max_epochs=5", "checkpoint.every_n_epochs=3")
    assert checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 4


def test_checkpoints_hold_plain_types_and_stand_alone(run: Run, tmp_path: Path) -> None:
    overrides = ["model.bidirectional=true", "model.num_layers=2", "model.dropout=0.1"]
    run("run", *overrides)
    for name in ("best.ckpt", "last.ckpt"):
        path = tmp_path / "run" / "checkpoints" / name
        content = checkpoint(path)
        assert {type(leaf) for leaf in leaves(content)} <= set(PLAIN)
        module = SequenceClassifier.load_from_checkpoint(path, weights_only=True)
        assert (module.model.gru.num_layers, module.model.gru.bidirectional) == (2, True)
        assert all(map(torch.equal, module.state_dict().values(), content["state_dict"].values()))
        assert content["grulab"]["config"] == compose([*SMALL, *overrides]).to_dict()
        # The recurrent weights load into a plain nn.GRU.
        gru = {k.removeprefix("model.gru."): v for k, v in content["state_dict"].items() if ".gru." in k}
        torch.nn.GRU(5, 8, 2, bidirectional=True).load_state_dict(gru)


def test_the_test_uses_the_best_checkpoint(run: Run, tmp_path: Path) -> None:
    summary = run("run", "trainer.max_epochs=6", "optimizer.lr=2.0", "checkpoint.monitor=val/loss")
    module = SequenceClassifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").eval()
    x, lengths, y = SequenceDataModule(compose(SMALL).data, 0).split("test")[np.arange(40)]
    right = (module(x, lengths).argmax(1) == y).float()
    assert math.isclose(summary["metrics"]["test/accuracy"], right.mean().item(), abs_tol=1e-6)
    by_length = {k.rsplit("/", 1)[1]: v for k, v in summary["metrics"].items() if "by_length" in k}
    assert set(by_length) == {f"{n}-{n}" for n in set(lengths.tolist())}
    for length in set(lengths.tolist()):
        assert math.isclose(by_length[f"{length}-{length}"], right[lengths == length].mean().item(), abs_tol=1e-6)


def test_length_buckets_cover_every_length_once(run: Run) -> None:
    summary = run("run", "data=temporal_order", "trainer.max_epochs=1", "data.test_size=200")
    ranges = [k.rsplit("/", 1)[1].split("-") for k in summary["metrics"] if "by_length" in k]
    covered = [length for low, high in ranges for length in range(int(low), int(high) + 1)]
    assert covered == list(range(30, 41))


def test_a_loss_that_is_no_number_stops_the_run_at_its_step(run: Run, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step \d: lower optimizer.lr") as caught:
        run("run", "optimizer.lr=2e37", "trainer.max_epochs=50")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"]["message"] == str(caught.value)
    assert "Traceback" in summary["error"]["traceback"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_guard_stops_before_the_weights_change(run: Run, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    step = SequenceClassifier.training_step
    seen = []

    def spoilt(self: SequenceClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        seen.append([parameter.detach().clone() for parameter in self.parameters()])
        loss = step(self, batch, batch_idx)
        if len(seen) == 5:
            monkeypatch.setattr("torch.optim.Adam.step", lambda *_: pytest.fail("the weights were changed"))
            return loss + value
        return loss

    monkeypatch.setattr(SequenceClassifier, "training_step", spoilt)
    with pytest.raises(NonFiniteLossError, match="at step 4"):
        run("run")
    assert len(seen) == 5


class OnAnAccelerator:
    """A stub of a loss tensor whose device is cuda, for TerminateOnNaN."""

    device = torch.device("cuda")

    def __init__(self, value: float) -> None:
        self.value = value

    def detach(self) -> torch.Tensor:
        return torch.tensor(self.value)


@pytest.mark.parametrize("reader", ["a full list", "validation", "a checkpoint"])
def test_on_an_accelerator_the_right_step_is_named_later(reader: str) -> None:
    guard, trainer, spoilt = TerminateOnNaN(), SimpleNamespace(global_step=100), 130

    def train_and_read() -> None:
        for step in range(100, 150 if reader == "a full list" else 140):
            trainer.global_step = step
            loss = OnAnAccelerator(math.nan if step == spoilt else 1.0)
            guard.on_before_backward(trainer, None, loss)  # type: ignore[arg-type]
        if reader == "validation":
            guard.on_validation_start(trainer, None)  # type: ignore[arg-type]
        else:
            guard.on_save_checkpoint(trainer, None, {})  # type: ignore[arg-type]

    with pytest.raises(NonFiniteLossError, match="nan at step 130"):
        train_and_read()


@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
def test_weights_spoilt_by_an_epochs_last_step_are_not_kept(run: Run, tmp_path: Path, monitor: str) -> None:
    """The last step's own loss is finite and no step follows, so the validation loss must stop the run."""
    with pytest.raises(NonFiniteLossError, match=r"the validation loss is (nan|inf) after step 0"):
        run("run", "data.train_size=32", "trainer.max_epochs=1", "optimizer.lr=2e37", f"checkpoint.monitor={monitor}")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_a_failure_says_so_and_a_folder_is_used_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr("grulab.training.callbacks.epoch_log.EpochLog.on_train_epoch_end", fail)
    with pytest.raises(OSError, match="disk on fire"):
        run("run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]["type"]) == ("failed", "OSError")
    with pytest.raises(ConfigError, match=r"holds a run \(failed\); go on with grulab resume"):
        run("run")


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)])
def test_other_precisions_train(run: Run, tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    assert math.isfinite(run("run", f"trainer.precision={precision}")["metrics"]["test/loss"])
    weights = checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert run("plain")["metrics"]["train/loss"] != pytest.approx(run("again", f"trainer.precision={precision}")["metrics"]["train/loss"], rel=1e-12)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    "override",
    [
        "trainer.gradient_clip_val=1e-9",
        "optimizer.weight_decay=1.0",
        "optimizer.lr=0.01",
        "optimizer.schedule=cosine",
        "model.dropout=0.5",
        "seed=1",
        "data.seed=1",
        "data.batch_size=16",
        "data.noise=1.0",
        "data.frequencies=[0.2,0.3]",
    ],
)
def test_every_knob_does_something(run: Run, tmp_path: Path, override: str) -> None:
    run("plain", "model.num_layers=2")
    run("other", "model.num_layers=2", override)
    losses = [[row["train/loss"] for row in rows(tmp_path / name)] for name in ("plain", "other")]
    assert losses[0] != losses[1]


def test_the_optimizer_is_the_one_that_is_named() -> None:
    for algorithm, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = SequenceClassifier(
            5, 8, 1, 3, algorithm=algorithm, lr=0.3, weight_decay=0.1
        ).configure_optimizers()
        assert type(optimizer) is kind
        assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.3, 0.1)
    with pytest.raises(ValueError, match="algorithm=sgd: choose from adam, adamw"):
        SequenceClassifier(5, 8, 1, 3, algorithm="sgd")


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_is_what_it_says(run: Run, deterministic: bool) -> None:
    run("run", f"trainer.deterministic={deterministic}")
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_on_a_terminal_there_is_a_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("grulab.training.callbacks.progress_bar._SECONDS_BETWEEN_UPDATES", 0)
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    run("terminal", "trainer.max_epochs=3")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stdout.getvalue())  # type: ignore[attr-defined]
    assert re.search(r"epoch 1/3 .*\d/9.* steps  loss \d\.\d+ accuracy \d\.\d+", shown)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    run("pipe")
    assert sys.stdout.getvalue() == ""  # type: ignore[attr-defined]


def test_the_commit_is_noted() -> None:
    process = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)  # fmt: skip  # noqa: E501
    state = git_state()
    if process.returncode:
        assert state is None
    else:
        assert state is not None
        assert state["commit"] == process.stdout.strip()


def test_the_seed_example_is_learned(tmp_path: Path) -> None:
    """The default run, seeds 0 to 4: validation loss and accuracy after five epochs."""
    final = []
    for seed in range(5):
        train(compose([f"seed={seed}", "trainer.accelerator=cpu"]), tmp_path / str(seed))
        final.append([float(rows(tmp_path / str(seed))[-1][tag]) for tag in ("val/loss", "val/accuracy")])
    loss, accuracy = np.mean(final, axis=0)
    assert len(rows(tmp_path / "0")) == 5
    assert accuracy >= 0.85
    assert loss <= 0.40
    assert min(accuracy for _, accuracy in final) >= 0.80


def test_temporal_order_is_solved(tmp_path: Path) -> None:
    overrides = ["data=temporal_order", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    assert train(compose(overrides), tmp_path / "run")["metrics"]["test/accuracy"] >= 0.99
