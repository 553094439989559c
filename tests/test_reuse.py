"""A process that takes one job after another: no job finds anything of the jobs before it."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from experiments.sweeps.harness import processes_of
from omegaconf import OmegaConf
from torch import nn

from grulab.run_folder.checkpoint_file import load
from grulab.sweep.process_state import ProcessState
from tests.conftest import FAULTS, SIX_JOBS, SMALL, grulab, statuses

ONE_SLOT = ["hydra.launcher.cores=1", "hydra.sweep.dir=sweep"]


def test_jobs_of_a_slot_share_a_process_and_are_the_runs_made_alone(tmp_path: Path) -> None:
    """Each job differs from the one before it in every option that could leave something behind."""
    jobs = {
        "first": ["seed=3", "trainer.deterministic=false"],
        "wide": [
            "seed=4", "model.hidden_size=24", "model.num_layers=2", "model.dropout=0.3", "model.bidirectional=true"
        ],
        "double": ["seed=3", "trainer.precision=64-true", "trainer.loop=lightning"],
        "loader": ["seed=5", "data.num_workers=1", "optimizer.algorithm=adamw", "trainer.gradient_clip_val=0.5"],
        "last": ["seed=3", "trainer.deterministic=false", "data.max_length=12"],
    }  # fmt: skip
    keys = sorted({word.split("=")[0] for words in jobs.values() for word in words})
    defaults = {
        "data.max_length": 10, "data.num_workers": 0, "model.bidirectional": "false", "model.dropout": 0.0,
        "model.hidden_size": 8, "model.num_layers": 1, "optimizer.algorithm": "adam",
        "trainer.deterministic": "true", "trainer.gradient_clip_val": "null", "trainer.loop": "fast",
        "trainer.precision": "32-true",
    }  # fmt: skip
    values = [defaults | dict(word.split("=") for word in words) for words in jobs.values()]
    axes = [f"{key}={','.join(str(row[key]) for row in values)}" for key in keys]
    process = grulab(tmp_path, "train", "-m", *SMALL, *axes, f"hydra.sweeper.zip=[{','.join(keys)}]", *ONE_SLOT)
    assert process.returncode == 0, process.stderr
    folders = sorted((tmp_path / "sweep").glob("0*"))
    assert len(set(processes_of(tmp_path / "sweep"))) == 1
    for folder, (name, words) in zip(folders, jobs.items(), strict=True):
        alone = grulab(tmp_path, "train", *SMALL, *words, f"hydra.run.dir={name}")
        assert alone.returncode == 0, alone.stderr
        assert content_of(folder) == content_of(tmp_path / name), name


def content_of(run_dir: Path) -> tuple[Any, ...]:
    """Return what a run computes, and what it says, without times and its folder."""
    summary = json.loads((run_dir / "summary.json").read_text())
    rows = pd.read_csv(run_dir / "metrics.csv", dtype=str).drop(columns="seconds").to_csv()
    log = [line.split("]", 1)[1] for line in (run_dir / "run.log").read_text().splitlines() if line[:2] == "[2"]
    words = [line.rsplit("  ", 1)[0] if "epoch" in line else line.replace(str(run_dir), "") for line in log]
    said = [line for line in words if "folder" not in line and "next" not in line]
    state = load(run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    weights = {name: value.tolist() for name, value in state.items()}
    return rows, said, summary["metrics"], summary["baselines"], summary["step"], weights


def test_a_failure_ends_the_process_and_reuse_can_be_switched_off(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SIX_JOBS, *ONE_SLOT]
    assert grulab(tmp_path, *arguments, program=FAULTS % {1: "import", 3: "killed"}).returncode == 1
    sweep = tmp_path / "sweep"
    assert statuses(sweep) == ["done", "failed", "done", "failed", "done", "done"]
    # The launcher itself has recorded that the fourth was killed.
    first, second, third, _, fifth, sixth = processes_of(sweep)
    assert first == second
    assert fifth == sixth
    assert len({first, third, fifth}) == 3
    assert grulab(tmp_path, *arguments[:-1], "hydra.sweep.dir=each", "hydra.launcher.reuse=false").returncode == 0
    assert len(set(processes_of(tmp_path / "each"))) == 6
    process = grulab(tmp_path, *arguments[:-1], "hydra.sweep.dir=no", "hydra.launcher.reuse=maybe")
    assert process.returncode == 2
    assert process.stderr == "grulab: hydra.launcher.reuse=maybe: must be true or false\n"


def test_a_job_that_changes_its_directory_has_its_files_in_its_folder(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1", *ONE_SLOT, "hydra.job.chdir=true")
    assert process.returncode == 0, process.stderr
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("hydra.yaml")}
    assert found == {f"sweep/00{seed}_seed-{seed}/.hydra/hydra.yaml" for seed in (0, 1)}


# The grulab program whose jobs leave something behind when their test begins.
AT_TEST = """
import subprocess, threading, time, warnings
import grulab.training.module as module
kept = []
def a_thread(): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
def a_process(): kept.append(subprocess.Popen(["sleep", "1000"]))
def an_orphan(): subprocess.run("sleep 1000 &", shell=True)
def memory(): kept.append(bytearray(b"x") * 2**29)
def warn():
    warnings.warn("once")
    warnings.simplefilter("ignore")
test_start = module.SequenceClassifier.on_test_epoch_start
def leave(self):
    test_start(self)
    {left}()
module.SequenceClassifier.on_test_epoch_start = leave
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
@pytest.mark.parametrize("left", ["a_thread", "a_process", "an_orphan", "memory"])
def test_what_cannot_be_put_back_ends_the_process(tmp_path: Path, left: str) -> None:
    program = AT_TEST.format(left=left) + FAULTS % {}
    arguments = ["train", "-m", *SMALL, "seed=0,1,2", *ONE_SLOT]
    process = grulab(tmp_path, *arguments, program=program)
    assert process.returncode == 0, process.stderr
    assert statuses(tmp_path / "sweep") == ["done"] * 3
    # The first job decides how much memory is usual.
    assert len(set(processes_of(tmp_path / "sweep"))) == (2 if left == "memory" else 3)
    found = subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True, text=True, check=False).stdout
    assert found == ""


DIES = """
import os, signal
import grulab.sweep.process_state as state
restore = state.ProcessState.restore
def end(self):
    restore(self)
    os.kill(os.getpid(), signal.SIGKILL)
state.ProcessState.restore = end
"""


def test_a_process_that_died_between_two_jobs_is_replaced(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1,2", *ONE_SLOT, program=DIES + FAULTS % {})
    assert process.returncode == 0, process.stderr
    assert statuses(tmp_path / "sweep") == ["done"] * 3
    assert len(set(processes_of(tmp_path / "sweep"))) == 3


def _add_logger() -> None:
    logger = logging.getLogger("a library that a job has imported")
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.DEBUG)


LEAVE: dict[str, Callable[[], object]] = {
    "a working directory": lambda: os.chdir("/"),
    "an environment variable": lambda: os.environ.update(PL_GLOBAL_SEED="7"),
    "no environment variable": lambda: os.environ.pop("PATH"),
    "a path of modules": lambda: sys.path.insert(0, "/nowhere"),
    "a stream": lambda: setattr(sys, "stderr", None),
    "a handler of a signal": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "a log handler": lambda: logging.getLogger().addHandler(logging.NullHandler()),
    "a log level": lambda: logging.getLogger("lightning").setLevel(1),
    "a new logger": _add_logger,
    "no gradients": lambda: torch.set_grad_enabled(False),
    "a default type": lambda: torch.set_default_dtype(torch.float64),
    "a search for anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "threads of torch": lambda: torch.set_num_threads(2),
    "a flag of cuDNN": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "TF32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "less precise products": lambda: torch.set_float32_matmul_precision("medium"),
    "errors of NumPy": lambda: np.seterr(all="raise"),
    "no garbage collector": lambda: __import__("gc").disable(),
}


@pytest.mark.parametrize("what", LEAVE)
def test_what_a_job_leaves_is_put_back(what: str) -> None:
    before = ProcessState.now()
    LEAVE[what]()
    changed = ProcessState.now()
    before.restore()
    assert changed != before
    assert ProcessState.now() == before


NOTICED: dict[str, Callable[[], object]] = {
    "a umask": lambda: os.umask(0o077),
    "a signal that is blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "a handler of another signal": lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    "disabled logs": lambda: logging.disable(logging.INFO),
    "captured warnings": lambda: logging.captureWarnings(True),
    "a resolver": lambda: OmegaConf.register_new_resolver("left_by_a_job", str),
    "a default device": lambda: torch.set_default_device("meta"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "a hook of all modules": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "a kind of attention": lambda: torch.backends.cuda.enable_math_sdp(False),
    "a start method": lambda: multiprocessing.set_start_method("spawn", force=True),
}


@pytest.mark.parametrize("what", NOTICED)
def test_what_is_not_put_back_is_noticed(what: str) -> None:
    def look(sender: Connection) -> None:
        before = ProcessState.now()
        NOTICED[what]()
        before.restore()
        sender.send(ProcessState.now() != before)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    # What is left cannot be put back, so a process of its own takes it.
    process = multiprocessing.get_context("fork").Process(target=look, args=(sender,))
    process.start()
    assert receiver.poll(60)
    assert receiver.recv()
    process.join()


def test_a_thread_is_noticed() -> None:
    before = ProcessState.now()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    before.restore()
    assert ProcessState.now() != before
    done.set()
    thread.join()
    assert ProcessState.now() == before


def test_a_filter_of_warnings_ends_with_its_job(tmp_path: Path) -> None:
    """A job that ignores warnings does not take them from the next one."""
    program = AT_TEST.format(left="warn") + FAULTS % {}
    assert grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1", *ONE_SLOT, program=program).returncode == 0
    assert len(set(processes_of(tmp_path / "sweep"))) == 1
    for path in (tmp_path / "sweep").glob("0*/run.log"):
        assert path.read_text().count("UserWarning: once") == 1
    assert warnings.filters
