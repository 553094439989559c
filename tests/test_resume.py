"""An interrupted and resumed run equals the uninterrupted run, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from experiments.exact_resume.harness import SMALL, Moment, differences, random_moments, run_until_done

from grulab import compose, resume, train
from grulab.config.schema import Schedule
from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_file import load
from grulab.run_folder.stored_config import resumed_config
from grulab.run_folder.summary import write_summary
from grulab.system.signals import _SECONDS_OF_ONE_SIGNAL, Interrupted
from grulab.training.callbacks.rng_state import RNGState
from grulab.training.module import SequenceClassifier
from grulab.training.optimizer import learning_rate
from grulab.training.resume import resume_run
from tests.conftest import Start, interrupt_after

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT

CONFIGURATIONS = [
    ["checkpoint.every_n_steps=3", "model.num_layers=2", "model.dropout=0.3", "model.bidirectional=true"],
    ["data.num_workers=2", "optimizer.schedule=cosine", "trainer.early_stopping_patience=2"],
    ["trainer.precision=64-true", "checkpoint.every_n_steps=2"],
    ["data.fresh=true", "checkpoint.every_n_steps=5", "optimizer.schedule=linear", "model.update_bias=chrono"],
    ["checkpoint.every_n_epochs=2", "checkpoint.monitor=val/loss", "model.num_layers=2", "model.dropout=0.3"],
]


@pytest.mark.parametrize("index", range(len(CONFIGURATIONS)))
def test_kills_at_random_moments_change_nothing(tmp_path: Path, accelerator: str, index: int) -> None:
    overrides = [*SMALL, accelerator, *CONFIGURATIONS[index]]
    run_until_done(overrides, tmp_path / "alone", [])
    stopped = run_until_done(overrides, tmp_path / "killed", random_moments(random.Random(index), 11))
    assert stopped >= 3
    assert differences(tmp_path / "alone", tmp_path / "killed") == []


def test_a_signal_right_after_the_start_is_no_failure_of_the_harness(tmp_path: Path) -> None:
    for attempt, signum in enumerate([INT, TERM] * 3):
        stopped = run_until_done(SMALL, tmp_path / str(attempt), [Moment("time", 0, signum)])
        assert stopped <= 1


@pytest.mark.parametrize(
    "moments",
    [
        [
            Moment("half a checkpoint", 1, KILL),
            Moment("half a checkpoint", 2, KILL),
            Moment("between renames", 2, KILL),
        ],
        [Moment("row written", 2, KILL), Moment("curves written", 3, KILL), Moment("checkpoint written", 2, KILL)],
        [Moment("start-up", 1, KILL), Moment("test", 1, KILL), Moment("test", 1, TERM), Moment("summary", 1, KILL)],
        [
            Moment("validation", 2, TERM),
            Moment("validation", 1, INT),
            Moment("batch", 7, TERM),
            Moment("batch", 1, INT),
        ],
        [Moment("start-up", 1, TERM), Moment("half a checkpoint", 2, INT), Moment("row written", 2, TERM)],
    ],
    ids=lambda moments: ", ".join(map(str, moments)),
)
def test_every_kind_of_moment(tmp_path: Path, accelerator: str, moments: list[Moment]) -> None:
    overrides = [*SMALL, accelerator, "model.num_layers=2", "model.dropout=0.3"]
    run_until_done(overrides, tmp_path / "alone", [])
    assert run_until_done(overrides, tmp_path / "stopped", moments) == len(moments)
    assert differences(tmp_path / "alone", tmp_path / "stopped") == []


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_every_epoch_is_a_good_place_to_stop(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    overrides = [f"optimizer.schedule={schedule}", "trainer.early_stopping_patience=3", "optimizer.lr=0.05"]
    alone = start("alone", *overrides)
    for epoch in range(1, len(pd.read_csv(alone / "metrics.csv")) + 1):
        with monkeypatch.context() as patch:
            interrupt_after(patch, epoch)
            with pytest.raises(Interrupted):
                start(f"stopped-{epoch}", *overrides)
        summary = json.loads((tmp_path / f"stopped-{epoch}" / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        resume(tmp_path / f"stopped-{epoch}")
        assert differences(alone, tmp_path / f"stopped-{epoch}") == []


@pytest.mark.parametrize("epochs", range(1, 6))
def test_k_epochs_extended_to_n_equal_n(start: Start, epochs: int) -> None:
    alone, extended = start("alone"), start("extended", f"trainer.max_epochs={epochs}")
    summary = resume(extended, ["trainer.max_epochs=6"])
    assert (summary["status"], summary["epochs"], summary["resumed"]) == ("done", 6, 1)
    assert differences(alone, extended) == []


def test_early_stopping_is_over_and_patience_can_grow(start: Start) -> None:
    overrides = ["optimizer.lr=1e-30", "trainer.max_epochs=9"]  # no epoch is better than the first
    stopped = start("stopped", *overrides, "trainer.early_stopping_patience=2")
    assert len(pd.read_csv(stopped / "metrics.csv")) == 3
    before = (stopped / "checkpoints" / "last.ckpt").read_bytes()
    assert resume(stopped)["epochs"] == 3
    assert (stopped / "checkpoints" / "last.ckpt").read_bytes() == before
    assert resume(stopped, ["trainer.early_stopping_patience=4"])["epochs"] == 5
    assert differences(start("patient", *overrides, "trainer.early_stopping_patience=4"), stopped) == []
    assert resume(stopped, ["trainer.early_stopping_patience=null"])["epochs"] == 9


@pytest.mark.parametrize(("monitor", "threshold"), [("val/accuracy", 0.5), ("val/loss", 1.05)])
def test_a_run_stops_when_it_is_good_enough(
    start: Start, monitor: str, threshold: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    overrides = [f"checkpoint.monitor={monitor}", "trainer.max_epochs=30", "optimizer.lr=0.02"]
    stopped = start("stopped", *overrides, f"trainer.early_stopping_threshold={threshold}")
    scores = pd.read_csv(stopped / "metrics.csv")[monitor]
    is_good = scores >= threshold if monitor == "val/accuracy" else scores <= threshold
    assert 1 < len(scores) < 30
    assert is_good.tolist() == [False] * (len(scores) - 1) + [True]
    assert resume(stopped)["epochs"] == len(scores)
    assert resume(stopped, ["trainer.max_epochs=40"])["epochs"] == len(scores)
    assert "to go on, name a later end, such as trainer.early_stopping_threshold=null" in caplog.text
    assert resume(stopped, ["trainer.max_epochs=30"])["epochs"] == len(scores)
    assert resume(stopped, ["trainer.early_stopping_threshold=null"])["epochs"] == 30
    assert differences(start("alone", *overrides, "trainer.early_stopping_threshold=null"), stopped) == []


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.1] * 5), ("linear", [0.1, 0.075, 0.05, 0.0, 0.0]), ("cosine", [0.1, 0.0853553, 0.05, 0.0, 0.0])],
)
def test_rates_of_a_schedule(schedule: Schedule, expected: list[float]) -> None:
    assert [learning_rate(schedule, 0.1, epoch, 4) for epoch in (0, 1, 2, 4, 7)] == pytest.approx(expected)


def test_a_fixed_horizon_stays_when_a_run_is_extended(start: Start) -> None:
    overrides = ["optimizer.schedule=cosine", "optimizer.horizon=6"]
    run = start("run", *overrides, "trainer.max_epochs=1")
    resume(run, ["trainer.max_epochs=3"])
    resume(run, ["trainer.max_epochs=6"])
    assert differences(start("whole", *overrides), run) == []
    with pytest.raises(ConfigError, match=r"optimizer.horizon=7: the run has 6"):
        resume(run, ["optimizer.horizon=7"])
    resume(run, ["trainer.max_epochs=7"])
    assert pd.read_csv(run / "metrics.csv")["lr"].iloc[-1] == 0


def test_a_longer_horizon_is_the_schedules_too(start: Start) -> None:
    run = start("run", "optimizer.schedule=cosine", "trainer.max_epochs=2")
    resume(run, ["trainer.max_epochs=4"])
    rates = pd.read_csv(run / "metrics.csv")["lr"]
    expected = [0.02, 0.01, 0.01, 0.02 * 0.5 * (1 + np.cos(np.pi * 3 / 4))]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_finished_run_says_so_and_is_left_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    run = start("run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".owner"}
    with caplog.at_level("INFO"):
        assert resume(run)["status"] == "done"
    assert "finished already" in caplog.text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".owner"} == before
    with pytest.raises(ConfigError, match=r"trainer.max_epochs=3: 6 epochs are done already"):
        resume(run, ["trainer.max_epochs=3"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden_size=9"], r"model.hidden_size=9: the run has 8"),
        (["optimizer.lr=1.0", "seed=4"], r"optimizer.lr=1.0: the run has 0.02(.|\n)*seed=4: the run has 0"),
        (["trainer.deterministic=false"], r"trainer.deterministic=false: the run has true"),
        (["trainer.max_epoch=9"], "did you mean trainer.max_epochs"),
        (["trainer.max_epochs=0"], "must be at least 1"),
        (["trainer.max_epochs=8,9"], "single values"),
        (["+typo=1"], "single values"),
        (["data=temporal_order"], "single values"),
        (["trainer.max_epochs"], "key=value"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    summary = {"status": "failed", "config": compose(SMALL).to_dict(), "monitor": "val/accuracy", "metrics": {}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ConfigError, match=message):
        resumed_config(tmp_path, overrides)


def test_the_same_run_may_change_what_does_not_count(tmp_path: Path) -> None:
    summary = {"status": "failed", "config": compose(SMALL).to_dict(), "monitor": "val/accuracy", "metrics": {}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    overrides = ["trainer.max_epochs=50", "data.num_workers=2", "trainer.early_stopping_patience=7"]
    overrides += ["trainer.accelerator=cpu"]
    assert resumed_config(tmp_path, overrides) == compose([*SMALL, *overrides])


def test_the_checkpoint_has_the_last_word_on_what_run_it_is(start: Start) -> None:
    run = start("run", "trainer.max_epochs=1")
    summary = json.loads((run / "summary.json").read_text())
    summary["config"]["model"]["hidden_size"] = 9
    write_summary(run, summary)
    with pytest.raises(ConfigError, match=r"\.ckpt: model.hidden_size=9: the run has 8"):
        resume(run, ["trainer.max_epochs=2"])


def test_the_summary_of_another_run_is_not_the_jobs_result(start: Start) -> None:
    """A sweep says which run a folder should hold; in a report its job would have the results of another."""
    run, other = start("run"), start("other", "seed=1")
    own = (run / "summary.json").read_text()
    config = resumed_config(run, [])
    (run / "summary.json").write_text((other / "summary.json").read_text())
    with pytest.raises(ConfigError, match=r"summary\.json: is of another run, which differs in seed; move it"):
        resume_run(config, run)
    # Where no checkpoint tells what run it is, either.
    shutil.copytree(run, run.with_name("empty"), ignore=shutil.ignore_patterns("*.ckpt"))
    with pytest.raises(ConfigError, match=r"summary\.json: is of another run"):
        resume_run(config, run.with_name("empty"))
    (run / "summary.json").unlink()
    resume_run(config, run)
    metrics = [json.loads(text)["metrics"] for text in ((run / "summary.json").read_text(), own)]
    assert metrics[0] == metrics[1]


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing: no such folder"):
        resume(tmp_path / "missing")
    with pytest.raises(ConfigError, match="is not a run's folder"):
        resume(tmp_path)


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Interrupted(TERM)

    with monkeypatch.context() as patch:
        patch.setattr(SequenceClassifier, "training_step", fail)
        with pytest.raises(Interrupted):
            start("stopped")
    resume(tmp_path / "stopped")
    assert differences(start("alone"), tmp_path / "stopped") == []


@pytest.mark.parametrize("signum", [TERM, INT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_marks_and_tells(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, signum: int
) -> None:
    step, calls = SequenceClassifier.training_step, []

    def interrupted(self: SequenceClassifier, *args: Any) -> torch.Tensor:
        calls.append(self.global_step)
        if len(calls) == 10:
            os.kill(os.getpid(), signum)
        return step(self, *args)

    monkeypatch.setattr(SequenceClassifier, "training_step", interrupted)
    handlers = [signal.getsignal(s) for s in (TERM, INT, signal.SIGUSR1, signal.SIGHUP)]
    with pytest.raises(Interrupted) as caught:
        start("run")
    assert caught.value.exit_code == (130 if signum == INT else 143)
    assert [signal.getsignal(s) for s in (TERM, INT, signal.SIGUSR1, signal.SIGHUP)] == handlers
    assert len(calls) == 10
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert "go on with  grulab resume" in caplog.text


def test_a_second_signal_stops_at_once_and_loses_nothing(tmp_path: Path, accelerator: str) -> None:
    child = os.fork()
    if child == 0:
        step, calls = SequenceClassifier.training_step, []

        def hang(self: SequenceClassifier, *args: Any) -> torch.Tensor:
            calls.append(0)
            if len(calls) == 9:
                os.kill(os.getpid(), INT)
                # A duplicate of the first signal, as forwarded by a parent process.
                os.kill(os.getpid(), INT)
                time.sleep(1.5 * _SECONDS_OF_ONE_SIGNAL)
                os.kill(os.getpid(), INT)
                time.sleep(60)
            return step(self, *args)

        try:
            SequenceClassifier.training_step = hang  # type: ignore[method-assign]
            train(compose([*SMALL, accelerator]), tmp_path / "run")
        finally:
            # The child never goes on as a second pytest.
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    run_until_done([*SMALL, accelerator], tmp_path / "alone", [])
    run_until_done([*SMALL, accelerator], tmp_path / "run", [])
    assert differences(tmp_path / "alone", tmp_path / "run") == []


def test_from_the_command_line(tmp_path: Path) -> None:
    """End to end: a signal, its exit code, the printed resume command, and the result of that command."""
    grulab = [str(Path(sys.executable).with_name("grulab"))]
    command = [*grulab, "train", *SMALL, "trainer.max_epochs=2000", "hydra.run.dir=run"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(TERM)
        output = process.stdout.read()
        assert process.wait() == 143
    assert output.splitlines()[-1] == "interrupted by SIGTERM; go on with  grulab resume run"
    epochs = len(pd.read_csv(tmp_path / "run" / "metrics.csv"))
    again = [*grulab, "resume", "run", f"trainer.max_epochs={epochs + 2}"]
    resumed = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert resumed.stderr == ""
    assert resumed.stdout.startswith(f"resumed  after epoch {epochs} and ")
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == epochs + 2
    log = (tmp_path / "run" / "run.log").read_text()
    assert "interrupted by SIGTERM" in log
    assert "resumed  after epoch" in log
    nonsense = subprocess.run(
        [*grulab, "resume", "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (nonsense.returncode, nonsense.stderr) == (2, "grulab: nowhere: no such folder\n")


@pytest.mark.parametrize("signum", [TERM, INT, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_ends_the_workers_too(tmp_path: Path, signum: int) -> None:
    """A terminal and SLURM signal every process of the group, loader workers included."""
    command = [str(Path(sys.executable).with_name("grulab")), "train", *SMALL, "trainer.max_epochs=2000"]
    with subprocess.Popen(
        [*command, "data.num_workers=2", "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        os.killpg(process.pid, signum)
        output = process.stdout.read()
        assert process.wait(timeout=60) == (130 if signum == INT else 143)
    assert "go on with  grulab resume run" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no process is left


def test_an_ignored_signal_stays_ignored(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell starts background jobs with SIGINT ignored, because Ctrl-C is for the foreground job."""
    interrupt_after(monkeypatch, 2, INT)
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        start("run")
        assert signal.getsignal(INT) == signal.SIG_IGN
    finally:
        signal.signal(INT, before)


def test_random_states_come_back_to_the_bit() -> None:
    def draw() -> list[Any]:
        return [random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()]  # noqa: NPY002

    np.random.randn()  # noqa: NPY002  (after an odd number of draws NumPy caches one value)
    state = RNGState().state_dict()
    first = draw()
    restored = RNGState()
    restored.load_state_dict(state)
    restored.on_train_start(None, None)  # type: ignore[arg-type]
    assert draw() == first


def test_a_checkpoint_is_the_same_run_elsewhere(stopped: Path, start: Start, tmp_path: Path) -> None:
    """A run's folder can be moved: no file in it stores its path."""
    elsewhere = tmp_path / "moved" / "here"
    elsewhere.parent.mkdir()
    stopped.rename(elsewhere)
    resume(elsewhere)
    assert differences(start("alone"), elsewhere) == []
