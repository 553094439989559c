"""One run: what it leaves in its folder, and that the numbers there are true."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grulab import SequenceClassifier, SequenceDataModule
from grulab.composition import compose
from grulab.config import ConfigError
from grulab.data.plan import training_plan
from grulab.run import train
from grulab.tracking.guard import LossGuard, NonFiniteLossError
from grulab.tracking.recorder import COLUMNS
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
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["seconds"] > 0
    table = rows(tmp_path / "run")
    assert tuple(table[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "3"), ("2", "6")]
    assert {row["lr"] for row in table} == {"0.02"}


def test_the_same_seed_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    for name, overrides in {
        "a": [],
        "b": [],
        "workers": ["data.num_workers=2"],
        "other": ["seed=1"],
    }.items():
        run(name, "model.num_layers=2", "model.dropout=0.3", *overrides)

    def outcome(name: str) -> tuple[list[torch.Tensor], list[dict[str, str]]]:
        weights = checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"].values()
        return list(weights), [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / name)]

    weights, table = outcome("a")
    for name in ("b", "workers"):
        assert all(map(torch.equal, outcome(name)[0], weights)), name
        assert outcome(name)[1] == table, name
    assert not any(map(torch.equal, outcome("other")[0], weights))
    assert outcome("other")[1] != table


def test_seed_0_is_a_seed(run: Run) -> None:
    torch.manual_seed(123)
    first = run("first", "seed=0")
    torch.manual_seed(456)
    assert run("second", "seed=0")["metrics"] == first["metrics"]


def test_epoch_means_are_exact(run: Run, tmp_path: Path) -> None:
    """One pass over the whole split in 64 bits, sequence by sequence, gives the same means: a last batch of 1."""
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


def test_the_training_mean_counts_every_sequence_once(run: Run) -> None:
    """With a learning rate too small to move anything, the epoch's mean is the untrained model's over the split."""
    summary = run("run", "trainer.max_epochs=1", "optimizer.lr=1e-30")
    config = compose(SMALL)
    torch.manual_seed(config.seed)
    module = SequenceClassifier(5, 8, 1, 3).eval()
    data = SequenceDataModule(config.data, config.seed)
    x, lengths, y = data.split("train")[np.arange(65)]
    expected = torch.nn.functional.cross_entropy(module(x, lengths), y).item()
    assert math.isclose(summary["metrics"]["train/loss"], expected, abs_tol=1e-6)
    assert len(training_plan(data.split("train").lengths, 32, 0, 0)[-1]) == 1


def test_last_moves_forward_while_the_metric_gets_worse(run: Run, tmp_path: Path) -> None:
    summary = run("run", "trainer.max_epochs=6", "optimizer.lr=2.0", "checkpoint.monitor=val/loss")
    losses = [float(row["val/loss"]) for row in rows(tmp_path / "run")]
    best = int(np.argmin(losses)) + 1
    assert best < 6, "the learning rate was meant to spoil the run"
    best_ckpt, last_ckpt = (checkpoint(tmp_path / "run" / "checkpoints" / f"{n}.ckpt") for n in ("best", "last"))
    assert (best_ckpt["epoch"] + 1, last_ckpt["epoch"] + 1) == (best, 6)
    assert summary["best_epoch"] == best
    assert summary["metrics"]["val/loss"] == min(losses)
    assert last_ckpt["callbacks"]["RunCheckpoints"]["best_score"] == min(losses)


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
        # The recurrent part is nn.GRU's own.
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
    # What was saved before is a good state.
    if (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        state = checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
        assert all(torch.isfinite(weight).all() for weight in state.values())


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


def test_on_an_accelerator_the_right_step_is_named_later() -> None:
    guard = LossGuard()
    losses = [1.0] * 30 + [float("nan")] + [1.0] * 9
    guard._losses, guard._first_step = [torch.tensor(loss) for loss in losses], 100
    with pytest.raises(NonFiniteLossError, match="nan at step 130"):
        guard.on_validation_start(None, None)  # type: ignore[arg-type]
    assert guard._losses == []


def test_a_failure_says_so_and_a_folder_is_used_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr("grulab.tracking.recorder.Recorder.on_train_epoch_end", fail)
    with pytest.raises(OSError, match="disk on fire"):
        run("run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]["type"]) == ("failed", "OSError")
    with pytest.raises(ConfigError, match=r"holds a run \(failed\); go on with grulab resume"):
        run("run")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train(run: Run, precision: str) -> None:
    assert math.isfinite(run("run", f"trainer.precision={precision}")["metrics"]["test/loss"])


@pytest.mark.parametrize("overrides", [["optimizer=adamw"], ["trainer.gradient_clip_val=0.5"], ["model.dropout=0.5"]])
def test_every_knob_trains(run: Run, overrides: list[str]) -> None:
    assert run("run", *overrides)["status"] == "done"


def test_a_gradient_is_clipped(run: Run, tmp_path: Path) -> None:
    run("clipped", "trainer.gradient_clip_val=1e-9")
    run("free")
    assert rows(tmp_path / "clipped") != rows(tmp_path / "free")


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
