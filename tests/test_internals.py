"""Only grulab.internals uses private parts of other libraries; a part that a new version drops fails here by name."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from lightning.pytorch.trainer.connectors import callback_connector
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import grulab
from grulab.internals import hydra, lightning, tensorboard
from grulab.internals.lightning import note_missing_external_callbacks
from grulab.internals.torch import flat_weights, shut_down_workers, with_room_for_comment
from grulab.internals.torchmetrics import count_update, set_update_count, without_scipy_signal
from grulab.training.metrics import LossAndAccuracy

SOURCES = Path(grulab.__file__).parent

PARTS = {
    "hydra": [
        "hydra._internal.config_loader_impl:get_overrides_dirname",
        "hydra._internal.utils:get_args_parser",
        "hydra.core.utils:JobReturn.return_value.getter",
        hydra.BASIC_SWEEPER.replace(".BasicSweeper", ":BasicSweeper"),
    ],
    "lightning": [
        "lightning.pytorch.loops.fetchers:_DataFetcher",
        "lightning.pytorch.loops.progress:_ProcessedTracker",
        "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop",
        "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop.advance",
        "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop.on_run_start",
        "lightning.pytorch.profilers:PassThroughProfiler.profile",
        "lightning.pytorch:LightningModule.clip_gradients",
    ],
    "torch": [
        "torch.nn:GRU._update_flat_weights",
        "torch.nn:GRU.check_input",
        "torch.nn:GRU.check_hidden_size",
        "torch.nn:GRU.permute_hidden",
        "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter._shutdown_workers",
        "torch.jit:is_tracing",
    ],
    "tensorboard": [f"{tensorboard.__name__}:{name}" for name in tensorboard.__all__],
}


@pytest.mark.parametrize("part", [part for parts in PARTS.values() for part in parts])
def test_a_private_part_is_there(part: str) -> None:
    module, _, path = part.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        assert hasattr(found, name), f"{part} has gone; see grulab.internals"
        found = getattr(found, name)


def test_the_counters_of_a_trainer_are_there() -> None:
    """The counters that grulab.internals.lightning reads, and those that grulab.training.fast_loop increments."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    assert lightning.next_epoch_and_batch(trainer) == lightning.finished_epochs_and_batches(trainer) == (0, 0)
    loop: Any = trainer.fit_loop.epoch_loop
    state = trainer.fit_loop.state_dict()
    for key in ("epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"):
        assert {"current", "total", "is_last_batch"} <= state[key].keys(), key
        assert {"ready", "started", "processed", "completed"} == state[key]["current"].keys(), key
    for counters in (loop.batch_progress, loop.automatic_optimization.optim_progress.optimizer.zero_grad):
        for name in ("increment_ready", "increment_started", "increment_completed"):
            assert callable(getattr(counters, name)), name
    assert callable(loop.batch_progress.increment_processed)
    assert callable(loop.automatic_optimization.optim_progress.optimizer.step.increment_ready)
    assert {"profiler", "precision_plugin", "accumulate_grad_batches", "gradient_clip_val"} <= set(dir(trainer))
    assert loop.restarting is False
    assert callable(L.Callback.on_train_batch_start)


def test_the_version_that_is_installed_was_tested() -> None:
    assert L.__version__ in lightning.TESTED_VERSIONS


def test_the_weights_of_a_gru_come_four_for_each_layer_and_direction() -> None:
    gru = nn.GRU(3, 4, num_layers=2, bidirectional=True)
    assert [tuple(weight.shape) for weight in flat_weights(gru)[:4]] == [(12, 3), (12, 4), (12,), (12,)]
    assert len(flat_weights(gru)) == 16


def test_a_loader_ends_its_workers() -> None:
    loader = DataLoader(TensorDataset(torch.arange(4)), num_workers=1, persistent_workers=True)
    assert len(list(loader)) == 4
    (worker,) = loader._iterator._workers  # type: ignore[union-attr, attr-defined]
    shut_down_workers(loader)
    assert not worker.is_alive()
    assert loader._iterator is None
    shut_down_workers(loader)


def test_an_archive_of_torch_ends_without_a_comment(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "file")
    archive = (tmp_path / "file").read_bytes()
    commented = with_room_for_comment(archive, 3) + b"abc"
    (tmp_path / "file").write_bytes(commented)
    assert torch.load(tmp_path / "file", weights_only=True)["a"].sum() == 2


def test_a_metric_counts_its_updates() -> None:
    metric = LossAndAccuracy()
    assert not metric.update_called
    count_update(metric)
    assert metric.update_count == 1
    set_update_count(metric, 7)
    assert metric.update_count == 7


def test_scipy_signal_is_itself_again_afterwards() -> None:
    with without_scipy_signal():
        pass
    import scipy.signal

    assert callable(scipy.signal.windows.hamming)


def test_the_error_of_a_job_is_not_raised() -> None:
    job = JobReturn()
    job.status, job.return_value = JobStatus.FAILED, ValueError("as it is")
    assert str(hydra.value_or_error(job)) == "as it is"


def names_of_private_parts(path: Path) -> list[str]:
    """Return a module's imports of private parts of other libraries."""
    tensorboards = ("tensorboard.backend", "tensorboard.compat", "tensorboard.plugins", "tensorboard.summary")
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("grulab"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if re.search(r"(^|\.)_[a-z_]*[A-Za-z]", name) or name.startswith(tensorboards)]


def test_private_parts_are_imported_in_one_module_for_each_library() -> None:
    modules = [*SOURCES.rglob("*.py"), *SOURCES.with_name("hydra_plugins").rglob("*.py")]
    offenders = {path.name: names_of_private_parts(path) for path in modules if path.parent.name != "internals"}
    assert {name: found for name, found in offenders.items() if found} == {}
    assert names_of_private_parts(SOURCES / "internals" / "hydra.py")
    for library in ("hydra", "lightning", "tensorboard", "torch", "torchmetrics"):
        documentation = importlib.import_module(f"grulab.internals.{library}").__doc__
        assert documentation is not None
        assert re.search(r"read in version \d+\.\d+", documentation), library


def test_external_callbacks_are_looked_for_only_if_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    found: list[L.Callback] = [L.Callback()]

    def load(group: str) -> list[L.Callback]:
        asked.append(group)
        return list(found)

    def trainer() -> L.Trainer:
        return L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")

    monkeypatch.setattr(callback_connector, "_load_external_callbacks", load)
    note_missing_external_callbacks()
    assert found[0] in trainer().callbacks  # type: ignore[attr-defined]
    assert len(asked) == 2
    found.clear()
    note_missing_external_callbacks()
    trainer()
    assert len(asked) == 3
