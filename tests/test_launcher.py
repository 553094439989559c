"""A sweep finishes or can be resumed after any failure of a job, the launcher or the terminal."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.sweeps.harness import Sweep, done_jobs, kill_until_done, leaderboard

from grulab.config.compose import compose
from grulab.kernels import library
from grulab.run_folder.summary import write_summary
from grulab.sweep.status import record_failure
from grulab.training.run import train
from tests.conftest import FAULTS, SMALL, grulab, statuses


def test_whatever_happens_to_a_job_the_others_finish(tmp_path: Path) -> None:
    """Jobs are killed, crash, hang or fail to import: the report names each cause, and resume runs them again."""
    faults = {0: "killed", 1: "crashed", 2: "hanging", 3: "import"}
    arguments = ["train", "-m", *SMALL, "seed=0,1,2,3,4", "hydra.launcher.time_limit=8", "hydra.sweep.dir=sweep"]
    process = grulab(tmp_path, *arguments, program=FAULTS % faults)
    assert process.returncode == 1
    assert process.stderr == (
        "grulab: SweepFailedError: 4 of 5 jobs failed; grulab resume sweep goes on with all that are left\n"
    )
    sweep = tmp_path / "sweep"
    assert statuses(sweep) == ["failed"] * 4 + ["done"]
    report = (sweep / "leaderboard.md").read_text()
    assert "| 000_seed-0 | failed | Killed: by SIGKILL: by hand, or by what limits its memory |" in report
    assert "| 001_seed-1 | failed | Killed: by SIGSEGV; run.log may tell where it was |" in report
    assert "| 002_seed-2 | failed | TimeLimitError: took longer than hydra.launcher.time_limit=8 seconds |" in report
    assert "| 003_seed-3 | failed | ModuleNotFoundError: No module named 'no_such_module' |" in report
    assert "Segmentation fault" in (sweep / "001_seed-1" / "run.log").read_text()
    assert "no_such_module" in json.loads((sweep / "003_seed-3" / "summary.json").read_text())["error"]["traceback"]
    again = grulab(tmp_path, "resume", "sweep")
    assert again.returncode == 0, again.stderr
    assert "1 done before, 4 to do" in again.stdout
    assert statuses(sweep) == ["done"] * 5
    # The leaderboard equals that of an undisturbed sweep.
    assert grulab(tmp_path, *arguments[:-1], "hydra.sweep.dir=alone").returncode == 0
    assert leaderboard(sweep) == leaderboard(tmp_path / "alone")


def test_a_failed_job_leaves_its_traceback(tmp_path: Path) -> None:
    process = grulab(
        tmp_path, "train", "-m", *SMALL, "trainer.max_epochs=50", "data.train_size=320",
        "optimizer.lr=2e37,0.01", "hydra.sweep.dir=out",
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stdout.count("failed  000_lr-2e37  NonFiniteLossError: the loss is inf at step 1") == 1
    assert "Traceback" not in process.stderr + process.stdout
    assert "2 jobs: 1 failed, 1 done" in process.stdout
    assert "Traceback" in (tmp_path / "out" / "000_lr-2e37" / "run.log").read_text()
    assert statuses(tmp_path / "out") == ["failed", "done"]


def test_retries_and_stopping_at_a_failure(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SMALL, "seed=0,1,2", "hydra.launcher.cores=1"]
    again = grulab(
        tmp_path, *arguments, "hydra.launcher.retries=1", "hydra.sweep.dir=again", program=FAULTS % {0: "killed"}
    )
    assert again.returncode == 0, again.stderr
    assert "failed, again  000_seed-0" in again.stdout
    assert statuses(tmp_path / "again") == ["done"] * 3
    stopped = grulab(
        tmp_path, *arguments, "hydra.launcher.on_failure=stop", "hydra.sweep.dir=stop", program=FAULTS % {1: "killed"}
    )
    assert stopped.returncode == 1
    assert "1 of 3 jobs failed, and 1 were not started" in stopped.stderr
    assert statuses(tmp_path / "stop") == ["done", "failed"]
    in_batches = grulab(
        tmp_path, *arguments, "hydra.launcher.on_failure=stop", "hydra.sweeper.max_batch_size=1",
        "hydra.sweep.dir=batches", program=FAULTS % {1: "terminated"},
    )  # fmt: skip
    assert in_batches.returncode == 1
    assert "1 of 3 jobs failed, and 1 were not started" in in_batches.stderr
    assert "Killed: by SIGTERM, and not by the sweep" in in_batches.stdout
    assert statuses(tmp_path / "batches") == ["done", "failed"]
    assert "3 jobs: 1 done, 1 failed, 1 pending" in stopped.stdout


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_saves_its_jobs_and_goes_on(tmp_path: Path, signum: int, code: int) -> None:
    arguments = ["train", "-m", *SMALL, "data.num_workers=1", "seed=0,1,2", "trainer.max_epochs=40"]
    arguments.append("hydra.launcher.cores=2")
    sweep_dir = tmp_path / "sweep"
    # The first two jobs wait after their first epoch until the sweep has said that it stops.
    program = [sys.executable, "-c", FAULTS % {0: "held", 1: "held"}]
    sweep = Sweep([*arguments, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log", program)
    sweep.wait_until(lambda: len(list(sweep_dir.glob("*/failed-once"))) == 2)
    sweep.process.send_signal(signum)
    sweep.wait_until(lambda: "stopping: 2 jobs" in (tmp_path / "log").read_text())
    (tmp_path / "released").touch()
    assert sweep.process.wait(120) == code
    assert sweep.orphans() == []
    assert "interrupted; go on with  grulab resume sweep" in (tmp_path / "log").read_text()
    assert set(statuses(sweep_dir)) <= {"interrupted", "done"}
    assert "interrupted" in statuses(sweep_dir)
    report = grulab(tmp_path, "report", "sweep")
    assert "interrupted" in report.stdout
    assert "pending" in report.stdout
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    assert grulab(tmp_path, *arguments, "hydra.sweep.dir=alone").returncode == 0
    assert leaderboard(sweep_dir) == leaderboard(tmp_path / "alone")


# The grulab program with a clock that is 1000 seconds ahead as soon as there is a file named "later".
CLOCK = """
import os, time
clock = time.monotonic
time.monotonic = lambda: clock() + 1000 * os.path.exists("later")
"""


def state_of(pid: int) -> str:
    """Return the state of a process, such as "S" (sleeping) or "T" (stopped)."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_z_stops_the_jobs_too_and_their_time(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SMALL, "data.num_workers=1", "seed=0,1", "trainer.max_epochs=60"]
    arguments += ["hydra.launcher.cores=2", "hydra.launcher.time_limit=500", "hydra.sweep.dir=sweep"]
    program = [sys.executable, "-c", CLOCK + FAULTS % {}]
    sweep = Sweep(arguments, tmp_path, tmp_path / "log", program, own_group=True)

    def rows() -> list[int]:
        return [len(path.read_text().splitlines()) for path in sorted(tmp_path.glob("sweep/0*/metrics.csv"))]

    try:
        # Every job has begun, and with it its loader workers.
        sweep.wait_until(lambda: len(rows()) == 2 and min(rows()) > 2)
        sweep.process.send_signal(signal.SIGTSTP)
        sweep.wait_until(lambda: {state_of(pid) for pid in sweep.members()} == {"T"})
        assert len(sweep.members()) >= 3
        before = rows()
        (tmp_path / "later").touch()
        time.sleep(1)
        assert rows() == before
        assert max(before) < 60
        sweep.process.send_signal(signal.SIGCONT)
        assert sweep.process.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        sweep.process.kill()
    assert statuses(tmp_path / "sweep") == ["done"] * 2


def test_a_pause_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """Programs that run others without a terminal ignore the signals of the terminal for them."""
    program = "import os, signal, sys\nsignal.signal(signal.SIGTSTP, signal.SIG_IGN)\n"
    program += FAULTS.replace('"held": until_released', '"pause": lambda: os.kill(os.getppid(), signal.SIGTSTP)')
    sweep = Sweep(
        ["train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log",
        [sys.executable, "-c", program % {0: "pause"}], own_group=True,
    )  # fmt: skip
    assert sweep.process.wait(120) == 0, (tmp_path / "log").read_text()


def test_a_killed_sweep_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    """A small version of experiments/sweeps/survival.py."""
    arguments = [*SMALL, "data.num_workers=1", "model.hidden_size=4,8", "seed=0,1,2", "trainer.max_epochs=8"]
    assert grulab(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=alone").returncode == 0
    counts = kill_until_done(arguments, tmp_path / "killed", 6, seconds=1.0, generator=random.Random(3))
    assert counts["parent"] + counts["job"] >= 3
    assert counts["orphans"] == 0
    assert counts["jobs run again"] == 0
    assert leaderboard(tmp_path / "killed") == leaderboard(tmp_path / "alone")


def test_one_process_at_a_time_is_at_work_on_a_sweep(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SMALL, "seed=0,1", "trainer.max_epochs=2000", "hydra.sweep.dir=sweep"]
    sweep = Sweep(arguments, tmp_path, tmp_path / "log")
    try:
        sweep.wait_until((tmp_path / "sweep" / "sweep.json").exists)
        other = grulab(tmp_path, "resume", "sweep")
        assert other.returncode == 2
        assert f"sweep: is in use by process {sweep.process.pid}" in other.stderr
    finally:
        sweep.process.kill()
        sweep.process.wait()
    assert sweep.orphans() == []


def test_nobody_needs_to_read_what_a_sweep_says(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("grulab")), "train", "-m", *SMALL, "seed=0,1,2"]
    with subprocess.Popen([*command, "hydra.sweep.dir=sweep"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
    assert statuses(tmp_path / "sweep") == ["done"] * 3
    assert (tmp_path / "sweep" / "report.html").is_file()


def test_a_failure_is_not_written_over_another_run(tmp_path: Path) -> None:
    train(compose([*SMALL, "seed=1"]), tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    record_failure(tmp_path / "run", compose([*SMALL, "seed=2"]), "Killed", "by SIGKILL")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_other_launchers_get_the_same_states(tmp_path: Path, launcher: str) -> None:
    arguments = [*SMALL, "seed=0,1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    if launcher == "joblib":
        arguments.append("hydra.launcher.n_jobs=2")
    assert grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=alone").returncode == 0
    assert grulab(tmp_path, "train", "-m", *arguments).returncode == 0
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone")
    # Delete one job's folder, and mark another job as failed.
    jobs = sorted((tmp_path / "sweep").glob("0*"))
    for path in sorted(jobs[0].rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    summary: dict[str, Any] = json.loads((jobs[1] / "summary.json").read_text())
    write_summary(jobs[1], summary | {"status": "failed"})
    done = done_jobs(tmp_path / "sweep")
    # A plug-in that grulab does not know is not taken from a file.
    asked = ["hydra/launcher=submitit_local"] if launcher == "submitit_local" else []
    again = grulab(tmp_path, "resume", "sweep", *asked)
    assert again.returncode == 0, again.stderr
    assert statuses(tmp_path / "sweep") == ["done"] * 3
    assert done.items() <= done_jobs(tmp_path / "sweep").items()
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone")


# Overrides that a machine without GPU and kernels cannot satisfy, and the error message of each.
MISSING = {
    "trainer=gpu": "trainer.accelerator=cuda: this machine has no cuda device",
    "trainer.precision=16-mixed": "trainer.precision=16-mixed: the cpu has no 16-bit floats of that kind",
    "model.backend=fused": "model.backend=fused: the fused kernels are not built",
}
# The grulab program on a machine without kernels; the tests that run it are skipped where there is a GPU.
BARE_MACHINE = """
import sys
from grulab.cli import main
from grulab.kernels import library
library.problem = lambda: "are not built"
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("override", MISSING)
def test_the_local_launcher_checks_this_machine_before_it_starts(tmp_path: Path, override: str) -> None:
    overrides = [line for line in SMALL if not override.startswith("trainer=") or "accelerator" not in line]
    arguments = ["train", "-m", *overrides, override, "seed=0,1", "hydra.sweep.dir=sweep"]
    process = grulab(tmp_path, *arguments, program=BARE_MACHINE)
    assert process.returncode == 2
    assert process.stderr.startswith(f"grulab: {MISSING[override]}")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("override", MISSING)
def test_with_other_launchers_the_job_checks_the_machine_that_it_is_on(tmp_path: Path, override: str) -> None:
    """A login node has no GPU, but the nodes that run its jobs may have one."""
    overrides = [line for line in SMALL if not override.startswith("trainer=") or "accelerator" not in line]
    arguments = ["train", "-m", *overrides, override, "seed=0,1", "hydra/launcher=basic", "hydra.sweep.dir=sweep"]
    process = grulab(tmp_path, *arguments, program=BARE_MACHINE)
    assert process.returncode == 1, process.stderr
    assert statuses(tmp_path / "sweep") == ["failed"] * 2
    for path in (tmp_path / "sweep").glob("0*/summary.json"):
        error = json.loads(path.read_text())["error"]
        assert (error["type"], error["message"].partition(";")[0]) == ("ConfigError", MISSING[override])
    # On a machine with kernels, the sweep can be resumed.
    if override == "model.backend=fused" and library.is_built():
        assert grulab(tmp_path, "resume", "sweep").returncode == 0
        assert statuses(tmp_path / "sweep") == ["done"] * 2
