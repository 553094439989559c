"""Sweeps as users start them: they finish, they are continued after anything, and nothing is done twice."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiments.sweeps.harness import Sweep, done_jobs, kill_until_done, leaderboard

from grulab.composition import compose, compose_sweep
from grulab.run import train
from grulab.sweep import manifest
from grulab.sweep.states import record_failure
from tests.conftest import FAULTS, SMALL, grulab

LAUNCHERS = ["local", "basic", "joblib"]


def statuses(sweep_dir: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in sorted(sweep_dir.glob("0*/summary.json"))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished sweep of four small jobs, two configurations with two seeds, in a folder named sweep."""
    folder = tmp_path_factory.mktemp("finished")
    process = grulab(folder, "train", "-m", *SMALL, "model.hidden_size=4,8", "seed=0,1", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    (folder / "output").write_text(process.stdout)
    return folder / "sweep"


def test_a_sweep_gives_each_job_its_folder(finished: Path) -> None:
    jobs = sorted(path for path in finished.iterdir() if path.name[0] == "0")
    assert [job.name for job in jobs] == [
        "000_hidden_size-4_seed-0",
        "001_hidden_size-4_seed-1",
        "002_hidden_size-8_seed-0",
        "003_hidden_size-8_seed-1",
    ]
    for job in jobs:
        assert json.loads((job / "summary.json").read_text())["status"] == "done"
        assert {path.name for path in job.iterdir()} == {
            ".hydra", ".owner", "checkpoints", "metrics.csv", "run.log", "summary.json", "tensorboard",
        }  # fmt: skip
        log = (job / "run.log").read_text()
        assert log.count("result  test accuracy") == 1
        assert {path.name for path in (job / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    # It ends with what it has found.
    output = (finished.parent / "output").read_text()
    assert "4 jobs: 4 to do, " in output
    assert "4 jobs: 4 done" in output
    assert (finished / "report.html").is_file()
    again = grulab(finished.parent, "report", "sweep")
    assert again.returncode == 0
    assert again.stdout.strip() == output[output.index("Leaderboard") :].strip()


def test_a_job_of_a_sweep_is_the_run_that_its_overrides_make(finished: Path, tmp_path: Path) -> None:
    """Forked, with its share of the cores, it computes what grulab train computes, bit for bit."""
    folder = "002_hidden_size-8_seed-0"
    job = next(job for job in manifest.read(finished).jobs if job.folder == folder)  # type: ignore[union-attr]
    process = grulab(tmp_path, "train", *job.overrides, "hydra.run.dir=alone")
    assert process.returncode == 0, process.stderr
    alone, in_sweep = (
        json.loads((path / "summary.json").read_text()) for path in (tmp_path / "alone", finished / folder)
    )
    assert alone["metrics"] == in_sweep["metrics"]
    assert alone["config_hash"] == in_sweep["config_hash"]
    for file in ("config.yaml", "overrides.yaml"):
        hydra = (tmp_path / "alone" / ".hydra" / file).read_text()
        assert (finished / folder / ".hydra" / file).read_text() == hydra


def test_the_manifest_tells_what_every_job_is(finished: Path) -> None:
    known = manifest.read(finished)
    assert known is not None
    expected = compose_sweep([*SMALL, "model.hidden_size=4,8", "seed=0,1"]).jobs
    assert known.jobs == expected
    content = json.loads((finished / "sweep.json").read_text())
    assert [row["config_hash"] for row in content["jobs"]] == [job.config.hash() for job in expected]
    assert [row["config"] for row in content["jobs"]] == [
        {"model.hidden_size": size, "seed": seed} for size in (4, 8) for seed in (0, 1)
    ]
    assert content["config"]["data.train_size"] == 65


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_finished_sweep_is_not_run_again(finished: Path, launcher: str) -> None:
    before = done_jobs(finished)
    board = leaderboard(finished)
    again = grulab(finished.parent, "resume", "sweep", f"hydra/launcher={launcher}")
    assert again.returncode == 0, again.stderr
    assert "4 jobs: 4 done" in again.stdout
    assert done_jobs(finished) == before
    assert leaderboard(finished) == board


def test_another_sweep_is_refused_in_the_folder_of_one(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    base = ["train", "-m", *SMALL, "hydra.sweep.dir=sweep"]
    swept = ["model.hidden_size=4,8", "seed=0,1"]
    changed = grulab(finished.parent, *base, *swept, "optimizer.lr=0.5", "model.num_layers=2")
    assert changed.returncode == 2
    assert changed.stderr.splitlines() == [
        "grulab: model.num_layers=2: the sweep in sweep has 1 (in every job); "
        "put it back, or name another hydra.sweep.dir",
        "grulab: optimizer.lr=0.5: the sweep in sweep has 0.02 (in every job); "
        "put it back, or name another hydra.sweep.dir",
    ]
    other = grulab(finished.parent, *base, "model.hidden_size=4,16", "seed=0,1")
    assert other.returncode == 2
    assert "model.hidden_size=16: the sweep in sweep has 8 (in 2 jobs, the first is 2)" in other.stderr
    more = grulab(finished.parent, *base, "model.hidden_size=4,8", "seed=0,1,2")
    assert more.returncode == 2
    assert "has 4 jobs, and this command makes 6" in more.stderr
    by_resume = grulab(finished.parent, "resume", "sweep", "optimizer.lr=0.5")
    assert by_resume.returncode == 2
    assert "optimizer.lr=0.5: the sweep in sweep has 0.02" in by_resume.stderr
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_plan_starts_nothing(finished: Path, tmp_path: Path) -> None:
    fresh = grulab(tmp_path, "train", "-m", "experiment=architecture", "--plan")
    assert fresh.returncode == 0, fresh.stderr
    assert "36 jobs: 36 new" in fresh.stdout
    assert "387  new" in fresh.stdout
    assert list(tmp_path.iterdir()) == []
    swept = ["model.hidden_size=4,8", "seed=0,1", "hydra.sweep.dir=sweep"]
    known = grulab(finished.parent, "train", "-m", "--plan", *SMALL, *swept)
    assert "4 jobs: 4 done" in known.stdout
    longer = grulab(finished.parent, "train", "-m", "--plan", *SMALL, *swept, "trainer.max_epochs=9")
    assert "4 jobs: 4 to extend" in longer.stdout


def test_a_bad_last_job_starts_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    process = grulab(tmp_path, "train", "-m", "experiment=architecture", "seed=0,1,-1", "model.dropout=0")
    assert process.returncode == 2
    assert time.monotonic() - began < 3
    lines = process.stderr.splitlines()
    assert lines[0] == "grulab: seed=-1: must be at least 0, in 12 of 36 jobs:"
    assert "job 35: model.hidden_size=32 model.num_layers=2 model.bidirectional=True seed=-1" in lines[-1]
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_whatever_happens_to_a_job_the_others_finish(tmp_path: Path) -> None:
    """Killed, crashed, hanging, diverged, and one that cannot import: each cause is told, and resume mends it."""
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
    # The same as if nothing had happened.
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
    sweep = Sweep([*arguments, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    while not list(sweep_dir.glob("*/metrics.csv")):
        assert sweep.process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    sweep.process.send_signal(signum)
    assert sweep.process.wait(60) == code
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


def test_a_killed_sweep_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    """The small version of experiments/sweeps/survival.py."""
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
        while not (tmp_path / "sweep" / "sweep.json").exists():
            assert sweep.process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
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


def test_folders_of_ones_own_making(tmp_path: Path) -> None:
    """A time in the sweep's folder is one time, and a job may be several folders deep: the report finds them all."""
    process = grulab(
        tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=at/${now:%H-%M-%S-%f}",
        "hydra.sweep.subdir=seeds/${seed}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    (sweep,) = (tmp_path / "at").iterdir()
    assert "2 jobs: 2 done" in process.stdout
    assert {path.name for path in (sweep / "seeds").iterdir()} == {"0", "1"}
    again = grulab(tmp_path, "resume", f"at/{sweep.name}")
    assert again.returncode == 0, again.stderr
    assert "2 jobs: 2 done" in again.stdout


def test_a_lost_manifest_is_written_again(finished: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(finished, sweep)
    before = done_jobs(sweep)
    (sweep / "sweep.json").write_text("{")
    broken = grulab(tmp_path, "resume", "sweep")
    assert broken.returncode == 2
    assert "sweep.json: cannot be read" in broken.stderr
    assert "hydra.sweep.dir=sweep: jobs that are done stay done" in broken.stderr
    (sweep / "sweep.json").unlink()
    arguments = ["train", "-m", *SMALL, "model.hidden_size=4,8", "hydra.sweep.dir=sweep"]
    another = grulab(tmp_path, *arguments, "seed=0,1", "optimizer.lr=0.5")
    assert another.returncode == 2
    assert "optimizer.lr=0.5: the sweep in sweep has 0.02" in another.stderr
    again = grulab(tmp_path, *arguments, "seed=0,1")
    assert again.returncode == 0, again.stderr
    assert "sweep.json is gone, but sweep holds this sweep's jobs; it goes on" in again.stdout
    assert done_jobs(sweep) == before
    (sweep / "000_hidden_size-4_seed-0" / "summary.json").write_text('{"status": "done"}')
    report = grulab(tmp_path, "report", "sweep")
    assert "4 jobs: 3 done, 1 failed" in report.stdout
    assert "summary.json cannot be read" in report.stdout
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    assert leaderboard(sweep) == leaderboard(finished)


def test_editing_conf_does_not_change_a_sweep_under_way(tmp_path: Path) -> None:
    """What a job does is decided when the sweep begins; a sweep is only continued as what it was."""
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\n")
    arguments = ["--config-dir", "mine", "experiment=e", *SMALL, "seed=0,1", "hydra.launcher.cores=1"]
    edit = f"open({str(mine / 'e.yaml')!r}, 'w').write('# @package _global_\\nmodel: {{hidden_size: 5}}\\n')"
    program = FAULTS % {0: "edit"}
    program = program.replace('"slow": lambda: time.sleep(1)', f'"edit": lambda: {edit}')
    process = grulab(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=sweep", program=program)
    assert process.returncode == 0, process.stderr
    sizes = [
        json.loads(path.read_text())["config"]["model"]["hidden_size"]
        for path in sorted((tmp_path / "sweep").glob("0*/summary.json"))
    ]
    assert sizes == [4, 4]
    again = grulab(tmp_path, "resume", "sweep")
    assert again.returncode == 2
    assert "model.hidden_size=5: the sweep in sweep has 4 (in every job)" in again.stderr
    # Neither is it made longer without a word.
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\ntrainer: {gradient_clip_val: null}\n")
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\ndata: {num_workers: 1}\n")
    longer = grulab(tmp_path, "resume", "sweep")
    assert longer.returncode == 2
    assert "data.num_workers=1: the sweep in sweep has 0 (in every job); put it back, or say so" in longer.stderr


def test_another_commit_is_a_warning(finished: Path) -> None:
    path = finished / "sweep.json"
    before = path.read_text()
    content = json.loads(before)
    content["git"] = {"commit": "0123456789abcdef", "changed": False}
    content["versions"]["torch"] = "2.0.0"
    path.write_text(json.dumps(content))
    try:
        process = grulab(finished.parent, "resume", "sweep")
    finally:
        path.write_text(before)
    assert process.returncode == 0, process.stderr
    assert "warning: the code has changed since the sweep began: it was commit 0123456789, now" in process.stdout
    assert "warning: torch has changed since the sweep began: it was 2.0.0, now" in process.stdout


def test_a_sweep_goes_on_for_longer(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SMALL, "seed=0,1"]
    assert grulab(tmp_path, *arguments, "hydra.sweep.dir=short").returncode == 0
    longer = grulab(tmp_path, "resume", "short", "trainer.max_epochs=4")
    assert longer.returncode == 0, longer.stderr
    assert grulab(tmp_path, *arguments, "trainer.max_epochs=4", "hydra.sweep.dir=long").returncode == 0
    assert leaderboard(tmp_path / "short") == leaderboard(tmp_path / "long")
    # From now on that is what it is.
    again = grulab(tmp_path, "resume", "short", "--plan")
    assert "2 jobs: 2 done" in again.stdout
    # What is short of its end is no result, and what is at its end by another rule is done.
    plan = grulab(tmp_path, "resume", "short", "--plan", "trainer.max_epochs=9")
    assert "2 jobs: 2 to extend" in plan.stdout
    known = manifest.read(tmp_path / "short")
    assert known is not None
    longer_jobs = [
        replace(job, config=replace(job.config, trainer=replace(job.config.trainer, max_epochs=9)))
        for job in known.jobs
    ]
    manifest.write(tmp_path / "short", replace(known, jobs=longer_jobs))
    assert "2 jobs: 2 to extend. No job has a result yet" in grulab(tmp_path, "report", "short").stdout
    manifest.write(tmp_path / "short", known)
    patient = grulab(tmp_path, "resume", "short", "trainer.early_stopping_patience=9")
    assert patient.returncode == 0, patient.stderr
    assert "2 jobs: 2 done" in patient.stdout


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_other_launchers_get_the_same_states(tmp_path: Path, launcher: str) -> None:
    arguments = [*SMALL, "seed=0,1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    if launcher == "joblib":
        arguments.append("hydra.launcher.n_jobs=2")
    assert grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=alone").returncode == 0
    assert grulab(tmp_path, "train", "-m", *arguments).returncode == 0
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone")
    # One job gone, and one failed.
    jobs = sorted((tmp_path / "sweep").glob("0*"))
    for path in sorted(jobs[0].rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    summary: dict[str, Any] = json.loads((jobs[1] / "summary.json").read_text())
    (jobs[1] / "summary.json").write_text(json.dumps(summary | {"status": "failed"}))
    done = done_jobs(tmp_path / "sweep")
    again = grulab(tmp_path, "resume", "sweep")
    assert again.returncode == 0, again.stderr
    assert statuses(tmp_path / "sweep") == ["done"] * 3
    assert done.items() <= done_jobs(tmp_path / "sweep").items()
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone")


def test_a_sweep_of_keys_side_by_side_runs(tmp_path: Path) -> None:
    process = grulab(
        tmp_path, "train", "-m", *SMALL, "model.hidden_size=4,8", "model.num_layers=2,1", "hydra.sweep.dir=sweep",
        "hydra.sweeper.zip=[model.hidden_size,model.num_layers]", "hydra.sweeper.max_batch_size=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    folders = sorted(path.name for path in (tmp_path / "sweep").glob("0*"))
    assert folders == ["000_hidden_size-4_num_layers-2", "001_hidden_size-8_num_layers-1"]


def test_a_run_ends_in_three_lines_that_work(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", *SMALL, "model.dropout=0.3", "name=mine")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("model.dropout=0.3 has no effect with model.num_layers=1")
    assert [line.split()[0] for line in lines[1:]] == ["epoch", "epoch", "result", "folder", "next"]
    folder, command = lines[-2].split()[1], lines[-1].split()[1:]
    assert folder.startswith("outputs/runs/mine/")
    trace = grulab(tmp_path, *command[1:])
    assert trace.returncode == 0, trace.stderr
    assert (tmp_path / folder / "trace" / "trace.md").is_file()


def test_an_experiment_without_multirun_says_so(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", "experiment=architecture", "debug=fast")
    assert process.returncode == 0, process.stderr
    assert "takes grulab train -m" in process.stdout
