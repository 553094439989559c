"""Sweeps on a real one-node SLURM: make test-slurm."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiments.cluster.one_node import ROOT, Cluster, one_node
from experiments.exact_resume.harness import differences
from experiments.sweeps.harness import Sweep, done_jobs, leaderboard

from tests.conftest import SIX_JOBS, SLOW_JOBS, SMALL, grulab

SLURM = ["hydra/launcher=slurm", "hydra.launcher.tasks=2"]
# Long enough to do something to it.
LONG = [*SLOW_JOBS, "trainer.max_epochs=500"]

needs_slurm = pytest.mark.skipif(ROOT not in os.environ, reason="make test-slurm runs it on a real SLURM")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Sockets have short paths.
    with one_node(tmp_path_factory.mktemp("slurm")) as running:
        before = dict(os.environ)
        os.environ |= running.environment
        yield running
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return cluster


@needs_slurm
def test_a_sweep_is_one_array_and_ends_as_it_does_here(tmp_path: Path, on_cluster: Cluster) -> None:
    process = grulab(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    assert "2 tasks for 6 jobs" in process.stdout
    assert process.stdout.count("\ndone  ") == 6
    (tmp_path / "alone").mkdir()
    assert grulab(tmp_path / "alone", "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep").returncode == 0
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone" / "sweep")
    submitted = json.loads((tmp_path / "sweep" / "slurm.json").read_text())
    (array,) = submitted["arrays"]
    assert (tmp_path / "sweep" / "slurm" / f"{array['id']}_0.log").read_text().count("done  ") == 3
    # Done, nothing more is submitted.
    again = grulab(tmp_path, "resume", "sweep")
    assert again.returncode == 0
    assert "array" not in again.stdout
    on_cluster.wait_until_empty()


@needs_slurm
def test_a_task_that_is_warned_saves_itself_and_starts_again(tmp_path: Path, on_cluster: Cluster) -> None:
    driver = Sweep(["train", "-m", *LONG, *SLURM, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    driver.wait_until(lambda: len(list((tmp_path / "sweep").glob("0*/metrics.csv"))) == 2)
    for task in on_cluster.tasks("RUNNING"):
        on_cluster.do("scancel", "--signal=USR1", "--batch", task)
    assert driver.process.wait(120) == 0, (tmp_path / "log").read_text()
    for seed in (0, 1):
        folder = tmp_path / "sweep" / f"00{seed}_seed-{seed}"
        assert json.loads((folder / "summary.json").read_text())["resumed"] == 1
        alone = [
            "train",
            *(word for word in LONG if "seed" not in word),
            f"seed={seed}",
            f"hydra.run.dir=alone{seed}",
        ]
        assert grulab(tmp_path, *alone).returncode == 0
        assert not differences(tmp_path / f"alone{seed}", folder)
    on_cluster.wait_until_empty()


@needs_slurm
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_the_tasks_go_on_without_the_command_and_resume_joins_them(
    tmp_path: Path, on_cluster: Cluster, signum: int
) -> None:
    driver = Sweep(["train", "-m", *LONG, *SLURM, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    driver.wait_until(lambda: len(list((tmp_path / "sweep").glob("0*/metrics.csv"))) == 2)
    second = grulab(tmp_path, "resume", "sweep")
    assert second.returncode == 2
    assert "is in use by process" in second.stderr
    os.kill(driver.process.pid, signum)
    assert driver.process.wait(60) == (130 if signum == signal.SIGINT else -signal.SIGKILL)
    if signum == signal.SIGINT:
        log = (tmp_path / "log").read_text()
        assert "the tasks go on without this command" in log
        assert "scancel --me --name=grulab-sinusoids-" in log
    assert len(on_cluster.tasks("RUNNING")) == 2
    back = grulab(tmp_path, "resume", "sweep")
    assert back.returncode == 0, back.stderr
    assert "joins   array" in back.stdout
    assert len(json.loads((tmp_path / "sweep" / "slurm.json").read_text())["arrays"]) == 1
    assert {json.loads(content)["resumed"] for content in done_jobs(tmp_path / "sweep").values()} == {0}
    on_cluster.wait_until_empty()


@needs_slurm
def test_what_a_cancelled_array_has_left_is_submitted_anew(tmp_path: Path, on_cluster: Cluster) -> None:
    driver = Sweep(["train", "-m", *LONG, *SLURM, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    driver.wait_until(lambda: len(list((tmp_path / "sweep").glob("0*/metrics.csv"))) == 2)
    on_cluster.do("scancel", "--me")
    assert driver.process.wait(60) == 1
    log = (tmp_path / "log").read_text()
    assert "2 of 2 jobs failed; grulab resume sweep" in log
    assert "stopped by a signal, and saved" in log
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    assert len(json.loads((tmp_path / "sweep" / "slurm.json").read_text())["arrays"]) == 2
    on_cluster.wait_until_empty()


@needs_slurm
def test_wait_false_submits_and_returns(tmp_path: Path, on_cluster: Cluster) -> None:
    arguments = [*SIX_JOBS, *SLURM, "hydra.launcher.wait=false", "hydra.sweep.dir=sweep"]
    began = grulab(tmp_path, "train", "-m", *arguments)
    assert began.returncode == 0, began.stderr
    assert "return  grulab resume sweep" in began.stdout
    on_cluster.wait_until_empty()
    assert len(done_jobs(tmp_path / "sweep")) == 6
    report = grulab(tmp_path, "resume", "sweep")
    assert report.returncode == 0
    assert "6 jobs: 6 done" in report.stdout


@needs_slurm
def test_failed_jobs_make_the_exit_codes_say_so(tmp_path: Path, on_cluster: Cluster) -> None:
    arguments = [*SMALL, "optimizer.lr=1e-3,3e37", "seed=0,1", *SLURM]
    process = grulab(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=sweep")
    assert process.returncode == 1
    assert "SweepFailedError: 2 of 4 jobs failed" in process.stderr
    assert "NonFiniteLossError" in process.stdout
    on_cluster.wait_until_empty()
    number = json.loads((tmp_path / "sweep" / "slurm.json").read_text())["arrays"][0]["id"]
    assert "ExitCode=1:0" in on_cluster.do("scontrol", "show", "job", number)


@needs_slurm
def test_a_search_runs_an_array_a_batch(tmp_path: Path, on_cluster: Cluster) -> None:
    search = [
        *SMALL, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.seeds=[0]",
        "hydra.sweeper.confirm=1", "optimizer.lr=interval(0.001,0.1)", "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    process = grulab(tmp_path, "train", "-m", *search, *SLURM)
    assert process.returncode == 0, process.stderr
    # Two batches of two trials, and the fresh seed.
    assert len(json.loads((tmp_path / "sweep" / "slurm.json").read_text())["arrays"]) == 3
    assert "joins" not in process.stdout
    assert len(done_jobs(tmp_path / "sweep")) == 5
    on_cluster.wait_until_empty()


@needs_slurm
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.partition=nope", "sbatch: Batch job submission failed: Invalid partition name specified"),
        ("hydra.launcher.sbatch=['--no-such']", "sbatch: unrecognized option '--no-such'"),
    ],
)
def test_what_sbatch_refuses_is_one_line(tmp_path: Path, on_cluster: Cluster, override: str, message: str) -> None:
    process = grulab(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, override, "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert process.stderr.startswith(f"grulab: hydra/launcher=slurm: {message}")
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


@needs_slurm
def test_why_tasks_wait_is_said(tmp_path: Path, on_cluster: Cluster) -> None:
    """SLURM takes an array that it can never start."""
    arguments = [*SIX_JOBS, *SLURM, "hydra.launcher.cpus_per_task=4096", "hydra.sweep.dir=sweep"]
    driver = Sweep(["train", "-m", *arguments], tmp_path, tmp_path / "log")
    driver.wait_until(lambda: "waiting  2 pending (PartitionConfig)" in (tmp_path / "log").read_text())
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(60) == 130
    on_cluster.do("scancel", "--me")
    on_cluster.wait_until_empty()


@needs_slurm
def test_what_a_node_lacks_is_said_by_the_command(tmp_path: Path, on_cluster: Cluster) -> None:
    arguments = [*SMALL[:-1], "seed=0,1", "trainer.accelerator=cuda", *SLURM, "hydra.sweep.dir=sweep"]
    process = grulab(tmp_path, "train", "-m", *arguments)
    assert process.returncode == 1
    assert "note: task 0-1: grulab: trainer.accelerator=cuda: this machine has no cuda device" in process.stdout
    assert "0 of 2 jobs failed, and 2 were not started" in process.stderr
