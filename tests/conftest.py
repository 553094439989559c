"""Shared fixtures: small versions of the configurations users run, and cleanup of process-wide state."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from experiments.exact_resume.harness import SMALL as SIX_EPOCHS
from hypothesis import HealthCheck, settings

from grulab.cli import main
from grulab.config.compose import compose
from grulab.run_folder.checkpoint_file import add_checksum
from grulab.system.signals import SIGNALS, Interrupted
from grulab.tasks.base import GeneratedTask
from grulab.tasks.registry import find_task, task_names
from grulab.training.callbacks.epoch_log import EpochLog
from grulab.training.run import train

# A shell starts its background processes with Ctrl-C ignored, and nohup with SIGHUP; the programs under test would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The tasks that need no file.
GENERATED = [name for name in task_names() if issubclass(find_task(name), GeneratedTask)]

# Enough to exercise every code path: two full training batches and a last batch of one sequence.
SMALL = [
    "data.train_size=65",
    "data.val_size=33",
    "data.test_size=40",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]

# A sweep, as the arguments of grulab train -m.
SIX_JOBS = [*SMALL, "model.hidden_size=4,8", "seed=0,1,2"]
# Two jobs with the slower kind of step, which take as long as trainer.max_epochs says.
SLOW_JOBS = [
    *SMALL, "data.train_size=400", "seed=0,1", "model.backend=torch", "checkpoint.every_n_steps=20"
]  # fmt: skip

# What all of grulab's launchers have in common.
SLICE_SETTINGS: dict[str, Any] = {
    "jobs_per_device": "auto", "on_failure": "continue", "retries": 0, "time_limit": None, "reuse": True
}  # fmt: skip

# On a busy machine an example takes as long as it takes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Seconds that a command may take before it hangs.
LIMIT = 300

Run = Callable[..., dict[str, Any]]
Start = Callable[..., Path]


def grulab(folder: Path, *arguments: str, program: str = "") -> subprocess.CompletedProcess[str]:
    """Run the grulab command; if ``program`` is given, run that Python source instead."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GRULAB_TRACEBACK", "HYDRA_FULL_ERROR")}
    command = [sys.executable, "-c", program] if program else [str(Path(sys.executable).with_name("grulab"))]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        timeout=LIMIT,
        check=False,
    )


def forked(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the grulab command as :func:`grulab` does, in a child of this process, which has imported everything."""
    output = [folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr")]
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for descriptor, path in enumerate(output, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        code = 70
        try:
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            # What pytest keeps of the log would be written to its own report.
            logging.getLogger().handlers.clear()
            code = main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    began, ended, status = time.monotonic(), 0, 0
    while not ended:
        if time.monotonic() - began > LIMIT:
            os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    out, err = (path.read_text() for path in output)
    return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), out, err)


# The grulab program with faults injected at the end of a job's first epoch, as {job number: kind of fault}.
FAULTS = """
import os, signal, sys, time
from grulab.cli import main
import grulab.training.callbacks.epoch_log

def never_ends():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    time.sleep(1000)

def until_released():
    while not os.path.exists("released"):
        time.sleep(0.01)

def disk_is_full():
    raise OSError(28, "No space left on device")

def no_module():
    import no_such_module

faults = %s
happen = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "hanging": never_ends,
    "import": no_module,
    "held": until_released,
    "full": disk_is_full,
}
EpochLog = grulab.training.callbacks.epoch_log.EpochLog
original = EpochLog.on_train_epoch_end

def then_fail(self, trainer, module):
    original(self, trainer, module)
    number = int(os.path.basename(trainer.default_root_dir)[:3])
    marker = os.path.join(trainer.default_root_dir, "failed-once")
    if number in faults and not os.path.exists(marker):
        open(marker, "w").close()
        happen[faults[number]]()

EpochLog.on_train_epoch_end = then_fail
sys.exit(main(sys.argv[1:]))
"""


def statuses(sweep_dir: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in sorted(sweep_dir.glob("0*/summary.json"))]


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Restore what Lightning and the command line change for the whole process."""
    environment = dict(os.environ)
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the sequences of the tests' files out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that trains a small run in tmp_path/<name>: run("name", *overrides)."""

    def start(name: str, *overrides: str) -> dict[str, Any]:
        return train(compose([*SMALL, *overrides]), tmp_path / name)

    return start


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> str:
    """Return the override that sets the accelerator for the tests of exact resume."""
    return f"trainer.accelerator={request.config.getoption('--accelerator')}"


@pytest.fixture
def start(tmp_path: Path, accelerator: str) -> Start:
    """Return a function that trains six small epochs in tmp_path/<name> and returns the folder."""

    def run(name: str, *overrides: str) -> Path:
        train(compose([*SIX_EPOCHS, accelerator, *overrides]), tmp_path / name)
        return tmp_path / name

    return run


def interrupt_after(monkeypatch: pytest.MonkeyPatch, epoch: int, signum: int = signal.SIGTERM) -> None:
    """Send this process a signal after the row of the given epoch is written."""
    original = EpochLog.on_train_epoch_end

    def stop(self: EpochLog, trainer: L.Trainer, module: L.LightningModule) -> None:
        original(self, trainer, module)
        if trainer.current_epoch + 1 == epoch:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(EpochLog, "on_train_epoch_end", stop)


@pytest.fixture
def stopped(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run that was interrupted after its fourth epoch."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            start("stopped")
    return tmp_path / "stopped"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the accelerator for the tests of exact resume: pytest tests/test_resume.py --accelerator cuda."""
    parser.addoption("--accelerator", default="cpu", help="cpu or cuda")


def reseal(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint with a valid checksum."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(add_checksum(buffer.getvalue()))
