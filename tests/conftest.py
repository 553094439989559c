"""What the tests share: the configurations users run, made small, and no state left behind."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from experiments.exact_resume.harness import SMALL as SIX_EPOCHS

from grulab.composition import compose
from grulab.run import train
from grulab.signals import Interrupted
from grulab.tracking.recorder import Recorder

# Enough to exercise everything: two full batches, and a last batch of one.
SMALL = [
    "data.train_size=65",
    "data.val_size=33",
    "data.test_size=40",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]

Run = Callable[..., dict[str, Any]]
Start = Callable[..., Path]


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Put back what Lightning sets for the whole process."""
    environment = dict(os.environ)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that trains a small run in a folder of the test's own: run("name", *overrides)."""

    def start(name: str, *overrides: str) -> dict[str, Any]:
        return train(compose([*SMALL, *overrides]), tmp_path / name)

    return start


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> str:
    """Return the override that chooses where tests of exact resume run."""
    return f"trainer.accelerator={request.config.getoption('--accelerator')}"


@pytest.fixture
def start(tmp_path: Path, accelerator: str) -> Start:
    """Return a function that trains six small epochs in tmp_path/<name> and returns the folder."""

    def run(name: str, *overrides: str) -> Path:
        train(compose([*SIX_EPOCHS, accelerator, *overrides]), tmp_path / name)
        return tmp_path / name

    return run


def interrupt_after(monkeypatch: pytest.MonkeyPatch, epoch: int, signum: int = signal.SIGTERM) -> None:
    """Send this process a signal when an epoch's row is written."""
    original = Recorder.on_train_epoch_end

    def stop(self: Recorder, trainer: L.Trainer, module: L.LightningModule) -> None:
        original(self, trainer, module)
        if trainer.current_epoch + 1 == epoch:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(Recorder, "on_train_epoch_end", stop)


@pytest.fixture
def stopped(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run that was interrupted after its fourth epoch."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            start("stopped")
    return tmp_path / "stopped"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of exact resume run elsewhere: pytest tests/test_resume.py --accelerator cuda."""
    parser.addoption("--accelerator", default="cpu", help="cpu or cuda")
