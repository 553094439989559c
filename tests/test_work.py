"""Slices of a sweep: together they are the sweep, each saves itself at a signal, and none does another's jobs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.exact_resume.harness import differences
from experiments.sweeps.harness import Sweep, done_jobs, leaderboard
from hypothesis import given
from hypothesis import strategies as st

from grulab.run_folder.lock import lock
from grulab.sweep import manifest
from grulab.sweep.slices import Slice, parse_slice
from grulab.system import cores
from grulab.system.cores import available_cores
from grulab.system.signals import COME_AGAIN
from tests.conftest import FAULTS, SIX_JOBS, SMALL, forked, grulab


def write(folder: Path, *arguments: str) -> Path:
    process = grulab(folder, "train", "-m", *(arguments or SIX_JOBS), "hydra.sweep.dir=sweep", "--only-write")
    assert process.returncode == 0, process.stderr
    return folder / "sweep"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sweep, run by the local launcher."""
    folder = tmp_path_factory.mktemp("alone")
    process = grulab(folder, "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    return folder / "sweep"


def test_slices_at_the_same_time_make_the_sweep(tmp_path: Path, alone: Path) -> None:
    sweep = write(tmp_path)
    assert {path.name for path in sweep.iterdir()} == {"sweep.json", ".owner"}
    before = (sweep / "sweep.json").read_bytes()
    slices = [Sweep(["work", "sweep", "--slice", f"{i}/3"], tmp_path, tmp_path / f"{i}.log") for i in range(3)]
    assert [one.process.wait(120) for one in slices] == [0, 0, 0], (tmp_path / "0.log").read_text()
    for i in range(3):
        log = (tmp_path / f"{i}.log").read_text()
        assert "2 jobs: 2 to do" in log
        assert f"done  00{i}_" in log
        assert f"done  00{i + 3}_" in log
    # Nothing but the jobs' own folders was written.
    assert (sweep / "sweep.json").read_bytes() == before
    assert len([path for path in sweep.iterdir() if not path.name.startswith("00")]) == 2
    done = done_jobs(sweep)
    assert len(done) == 6
    assert all(json.loads(content)["resumed"] == 0 for content in done.values())
    # A slice that is done has nothing to do, and what is left is the report.
    assert grulab(tmp_path, "work", "sweep", "--slice", "0/3").returncode == 0
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    assert done_jobs(sweep) == done
    assert leaderboard(sweep) == leaderboard(alone)
    for job in done:
        assert not differences(alone / job, sweep / job)
    # Clusters ration files.
    assert not (sweep / "000_hidden_size-4_seed-0" / ".hydra").exists()
    assert (alone / "000_hidden_size-4_seed-0" / ".hydra").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_at_a_signal_a_slice_saves_and_says_come_again(tmp_path: Path, signum: int) -> None:
    arguments = [*SMALL, "seed=0,1", "model.backend=torch", "trainer.max_epochs=150"]
    sweep = write(tmp_path, *arguments)
    slice_ = Sweep(["work", "sweep", "--slice", "0/1", "--slots", "2"], tmp_path, tmp_path / "log", own_group=True)
    slice_.wait_until(lambda: len(list(sweep.glob("0*/metrics.csv"))) == 2)
    os.kill(slice_.process.pid, signum)
    assert slice_.process.wait(60) == COME_AGAIN
    assert not slice_.orphans()
    log = (tmp_path / "log").read_text()
    assert "2 jobs save themselves" in log
    assert "Traceback" not in log
    statuses = [json.loads(path.read_text())["status"] for path in sorted(sweep.glob("0*/summary.json"))]
    assert statuses == ["interrupted", "interrupted"]
    # Run again, it goes on where it was.
    assert grulab(tmp_path, "work", "sweep", "--slice", "0/1").returncode == 0
    alone = ["train", *(word for word in arguments if "seed" not in word), "hydra.run.dir=alone"]
    assert grulab(tmp_path, *alone).returncode == 0
    assert json.loads((sweep / "000_seed-0" / "summary.json").read_text())["resumed"] == 1
    assert not differences(tmp_path / "alone", sweep / "000_seed-0")


def test_a_signal_before_the_first_job_is_no_loss_either(tmp_path: Path) -> None:
    write(tmp_path)
    slice_ = Sweep(["work", "sweep", "--slice", "0/2"], tmp_path, tmp_path / "log")
    # It imports for seconds.
    slice_.wait_until(lambda: "libtorch" in Path(f"/proc/{slice_.process.pid}/maps").read_text())
    os.kill(slice_.process.pid, signal.SIGTERM)
    assert slice_.process.wait(60) == COME_AGAIN, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_failed_job_makes_the_exit_code_say_so(tmp_path: Path) -> None:
    sweep = write(tmp_path)
    process = grulab(tmp_path, "work", "sweep", "--slice", "0/2", program=FAULTS % {2: "import"})
    assert process.returncode == 1
    assert process.stderr == (
        "grulab: SweepFailedError: 1 of 3 jobs failed; grulab resume sweep goes on with all that are left\n"
    )
    assert len(done_jobs(sweep)) == 2
    # Left out; then tried again.
    assert grulab(tmp_path, "work", "sweep", "--slice", "0/2", "--skip", "2").returncode == 0
    assert len(done_jobs(sweep)) == 2
    assert grulab(tmp_path, "work", "sweep", "--slice", "0/2").returncode == 0
    assert len(done_jobs(sweep)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sweep --slice 5/4", "--slice 5/4: the slices are 0/4 to 3/4"),
        ("sweep --slice 0/0", "--slice 0/0: there have to be some slices"),
        ("sweep --slice 1", "--slice 1: write I/N"),
        ("sweep --slice -1/2", "slice"),
        ("sweep --slice ¹/2", "write I/N"),
        ("sweep", "--slice"),
        ("nowhere --slice 0/2", "nowhere: no such folder on "),
        (". --slice 0/2", ".: holds no sweep.json"),
        ("sweep --slice 0/2 --slots 0", "--slots 0: must be a whole number"),
        ("sweep --slice 0/2 --slots two", "--slots two: must be a whole number"),
        (f"sweep --slice 0/2 --slots {'9' * 5000}", "must be a whole number of jobs"),
        ("sweep --slice 0/2 hydra.launcher=null", "hydra.launcher"),
        ("sweep --slice 0/2 --config-dir=/nowhere", "--config-dir /nowhere: no such folder"),
        ("sweep --slice 0/2 hydra.mode=RUN", "hydra.mode=RUN: leave it out"),
        ("sweep --slice 0/2 --skip x", "--skip x: must be numbers of jobs"),
        ("sweep --slice 0/2 seed=4", "seed=4: the jobs are as sweep.json has them"),
        ("sweep --slice 0/2 hydra.launcher.on_failure=no", "hydra.launcher.on_failure=no: choose from"),
        ("sweep --slice 0/2 hydra.sweep.dir=x", "hydra.sweep.dir=x: a slice sets it itself"),
        ("sweep --slice 0/2 --requeue", "--requeue: this is no job of SLURM"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: str, message: str) -> None:
    sweep = write(tmp_path)
    process = forked(tmp_path, "work", *arguments.split())
    assert process.returncode == 2, process.stdout
    assert message in process.stderr
    assert process.stderr.startswith("grulab: ")
    assert process.stderr.count("\n") == 1
    assert not list(sweep.glob("0*"))


def test_what_this_machine_lacks_is_said_before_the_first_job(tmp_path: Path) -> None:
    """--only-write leaves it to the machines that run the jobs."""
    sweep = write(tmp_path, *SMALL[:-1], "seed=0,1", "trainer.accelerator=cuda")
    process = grulab(tmp_path, "work", "sweep", "--slice", "0/2")
    assert process.returncode == 2
    assert process.stderr == (
        "grulab: trainer.accelerator=cuda: this machine has no cuda device; use trainer.accelerator=cpu\n"
    )
    assert not list(sweep.glob("0*"))


def test_a_search_has_no_slices_before_its_first_trial(tmp_path: Path) -> None:
    write(tmp_path, *SMALL, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(0.001,0.1)")
    process = forked(tmp_path, "work", "sweep", "--slice", "0/2")
    assert process.returncode == 2
    assert process.stderr == "grulab: sweep: has no jobs; those of a search come with grulab resume\n"


def test_only_write_checks_all_jobs_and_imports_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from grulab.cli import main; code = main(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    )
    process = grulab(tmp_path, "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep", "--only-write", program=program)
    assert process.returncode == 0, process.stderr
    assert "written  6 jobs in sweep/sweep.json" in process.stdout
    assert "grulab work sweep --slice 0/4" in process.stdout
    for arguments, message in [
        (["-m", "model.hidden_size=4,0"], "model.hidden_size=0"),
        ([], "--only-write: writes the jobs of a sweep, which takes -m"),
        (["-m", "seed=0,1", "--plan"], "--only-write: does not go with --plan"),
    ]:
        refused = forked(tmp_path, "train", *arguments, "hydra.run.dir=x", "hydra.sweep.dir=x", "--only-write")
        assert refused.returncode == 2
        assert message in refused.stderr
        assert not (tmp_path / "x").exists()


def test_what_could_run_code_is_not_taken_from_sweep_json(tmp_path: Path) -> None:
    sweep = write(tmp_path)
    content = json.loads((sweep / "sweep.json").read_text())
    callback = "+hydra.callbacks.x={_target_: os.system, command: 'touch pwned'}"
    for arguments, is_refused in [
        ([*content["arguments"], callback], True),
        # What is for sbatch has no effect on a slice, whatever it holds.
        ([*content["arguments"], "hydra/launcher=slurm", "hydra.launcher.setup=['touch pwned']"], False),
    ]:
        (sweep / "sweep.json").write_text(json.dumps(content | {"arguments": arguments}))
        process = grulab(tmp_path, "work", "sweep", "--slice", "0/6")
        assert process.returncode == (2 if is_refused else 0), process.stderr
        assert ("is not taken from a file" in process.stderr) == is_refused
        assert not list(tmp_path.rglob("pwned"))


# Two devices that are not there; each job says which it sees.
DEVICES = """
import os, sys
import torch
import grulab.sweep.slots as slots, grulab.sweep.check_machine
import grulab.training.run as run
from grulab.cli import main

torch.cuda.device_count = lambda: 2
slots.find_accelerator = lambda config: "cuda"
slots.notes = lambda *arguments: []
original = run.train

def train(config, folder):
    folder.mkdir(exist_ok=True)
    (folder / "device").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return original(config, folder)

run.train = train
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("options", "visible", "expected"),
    [
        (["hydra.launcher.jobs_per_device=1"], "3,5", {"3", "5"}),
        (["--slots", "4"], "3,5", {"3", "5"}),
        (["hydra.launcher.devices=[1]", "hydra.launcher.jobs_per_device=2"], "3,5", {"5"}),
        (["hydra.launcher.jobs_per_device=1"], None, {"0", "1"}),
    ],
)
def test_each_job_of_a_slice_sees_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], visible: str | None, expected: set[str]
) -> None:
    sweep = write(tmp_path, *SMALL, "seed=range(8)")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    process = grulab(tmp_path, "work", "sweep", "--slice", "0/2", *options, program=DEVICES)
    assert process.returncode == 0, process.stderr
    seen = [path.read_text() for path in sweep.glob("0*/device")]
    assert len(seen) == 4
    assert set(seen) == expected


def test_a_job_that_another_process_has_is_said_to_be_in_use(tmp_path: Path) -> None:
    sweep = write(tmp_path, *SMALL, "seed=0,1")
    (sweep / "000_seed-0").mkdir()
    with lock(sweep / "000_seed-0"):
        process = grulab(tmp_path, "work", "sweep", "--slice", "0/2")
    assert process.returncode == 1
    assert "failed  000_seed-0  is in use by another process" in process.stdout
    # The other process says how its run ends.
    assert not (sweep / "000_seed-0" / "summary.json").exists()


def test_a_slice_with_nothing_to_do_says_so(tmp_path: Path) -> None:
    write(tmp_path, *SMALL, "seed=0,1")
    for _ in range(2):
        process = grulab(tmp_path, "work", "sweep", "--slice", "1/2")
        assert process.returncode == 0
    assert "slice 1/2: nothing to do, 1 job of it done" in process.stdout
    assert "slice 2/3: nothing to do, 0 jobs of it done" in grulab(tmp_path, "work", "sweep", "--slice", "2/3").stdout


def test_cores_are_those_that_slurm_has_granted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_NTASKS", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    assert available_cores() == 16
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert available_cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert available_cores() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "64")
    assert available_cores() == 16
    # sbatch -n 6 -c 1: the script has what its tasks get later.
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_NTASKS", "6")
    assert available_cores() == 6
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert available_cores() == 1
    for nonsense in ("nonsense", "²", "9" * 5000, "-1", ""):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", nonsense)
        assert available_cores() == 16
    own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    (tmp_path / own).mkdir(parents=True, exist_ok=True)
    (tmp_path / own / "cpu.max").write_text("250000 100000")
    assert available_cores() == 3
    (tmp_path / own / "cpu.max").write_text("max 100000")
    assert available_cores() == 16


@given(st.integers(1, 50), st.integers(1, 300))
def test_every_job_is_in_one_slice(count: int, jobs: int) -> None:
    slices = [parse_slice(f"{index}/{count}") for index in range(count)]
    assert all(sum(number in slice_ for slice_ in slices) == 1 for number in range(jobs))


def test_a_slice_reads_its_jobs_only(tmp_path: Path) -> None:
    sweep = write(tmp_path)
    every, some = manifest.read(sweep), manifest.read(sweep, Slice(1, 4))
    assert every is not None
    assert some is not None
    assert some.jobs == [every.jobs[1], every.jobs[5]]
    assert (some.arguments, some.design) == (every.arguments, every.design)


def test_python_m_grulab_is_the_command(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('from the current folder')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "grulab", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "grulab work SWEEP --slice I/N" in done.stdout


def test_a_sweep_grows_without_a_start(tmp_path: Path) -> None:
    sweep = write(tmp_path, *SMALL, "seed=0,1")
    grown = grulab(tmp_path, "resume", "sweep", "seed=0,1,2", "--only-write")
    assert grown.returncode == 0, grown.stderr
    assert "3 jobs in sweep/sweep.json" in grown.stdout
    assert not list(sweep.glob("0*"))
    assert grulab(tmp_path, "work", "sweep", "--slice", "2/3").returncode == 0
    assert list(done_jobs(sweep)) == ["002_seed-2"]


def test_a_sweep_goes_on_with_another_launcher(tmp_path: Path) -> None:
    """The settings of the stored launcher are not those of another one."""
    write(tmp_path, *SMALL, "seed=0,1", "hydra.launcher.cores=1")
    process = grulab(tmp_path, "resume", "sweep", "hydra/launcher=basic")
    assert process.returncode == 0, process.stderr
    assert len(done_jobs(tmp_path / "sweep")) == 2
