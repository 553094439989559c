"""The SLURM launcher against what SLURM may answer, its settings and its batch script."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from experiments.sweeps.harness import Sweep, done_jobs
from hypothesis import given
from hypothesis import strategies as st

from grulab.cluster.logs import last_words, ranges
from grulab.cluster.slurm_script import read_submissions, write_script
from grulab.config_error import ConfigError
from grulab.sweep import slurm_settings
from tests.conftest import SIX_JOBS, SLICE_SETTINGS, SMALL, forked, grulab

SLURM = ["hydra/launcher=slurm", "hydra.launcher.tasks=2"]
SETTINGS = {
    "partition": None, "account": None, "time": None, "cpus_per_task": 1, "gpus_per_task": None, "mem": None,
    "constraint": None, "tasks": None, "jobs_per_task": None, "at_once": None, "setup": [], "sbatch": [],
    "wait": True, **SLICE_SETTINGS,
}  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder for programs named sbatch and squeue on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_sbatch_there_is_one_line_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    process = forked(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert (
        process.stderr
        == "grulab: hydra/launcher=slurm: this machine has no sbatch; give the command on a login node\n"
    )
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "time=soon",
            "hydra.launcher.time=soon: write minutes, 'minutes:seconds', 'hours:minutes:seconds' or 'days-hours'",
        ),
        ("time=0", "hydra.launcher.time=0: write minutes"),
        ("time=-5", "hydra.launcher.time=-5: write minutes"),
        ("partition='a b'", "hydra.launcher.partition=a b: must be a name without blanks"),
        ("partition=--wrap=x", "hydra.launcher.partition"),
        ("account='a\"b'", "hydra.launcher.account"),
        ("mem=lots", "hydra.launcher.mem=lots: must be an amount such as 8G"),
        ("gpus_per_task=0", "hydra.launcher.gpus_per_task=0"),
        ("cpus_per_task=0", "hydra.launcher.cpus_per_task=0: must be at least 1"),
        ("tasks=0", "hydra.launcher.tasks=0"),
        ("sbatch=['qos=long']", "an option of sbatch begins with -"),
        ("sbatch=['--job-name=x']", "--job-name=x is set by the launcher itself; leave it out"),
        ("sbatch=['-Mother']", "-Mother is set by the launcher itself; leave it out"),
        ("setup=['']", "a line is empty"),
        ("wait=later", "hydra.launcher.wait=later: must be true or false"),
        ("jobs_per_task=2", "hydra.launcher.jobs_per_task=2: does not go with tasks=2; write one"),
        ("cores=2", "cores"),
    ],
)
def test_mistakes_in_the_settings_are_one_line(tmp_path: Path, fake: Path, override: str, message: str) -> None:
    program(fake / "sbatch", "echo 1")
    process = forked(
        tmp_path, "train", "-m", *SIX_JOBS, *SLURM, f"hydra.launcher.{override}", "hydra.sweep.dir=sweep"
    )
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    assert not (tmp_path / "sweep").exists()


def test_the_reason_of_sbatch_is_the_message_and_nothing_stays(tmp_path: Path, fake: Path) -> None:
    program(fake / "squeue", "true")
    program(fake / "sbatch", "echo 'sbatch: error: no\nsbatch: error: Batch job submission failed: No' >&2; exit 1")
    process = forked(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert process.stderr == "grulab: hydra/launcher=slurm: sbatch: Batch job submission failed: No\n"
    assert not (tmp_path / "sweep").exists()


def test_without_squeue_nothing_is_submitted_twice(tmp_path: Path, fake: Path) -> None:
    program(fake / "sbatch", f"touch {tmp_path}/submitted; echo 1")
    program(fake / "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    process = forked(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert "squeue: slurm_load_jobs error: Unable to contact slurm controller" in process.stderr
    assert not (tmp_path / "submitted").exists()
    assert not (tmp_path / "sweep").exists()


# A queue of one array, which ends when there is a file named "ended". sbatch writes the environment's partition.
QUEUE = {
    "sbatch": 'echo "$@" >> {0}/submitted; touch {0}/queued; echo 17',
    "squeue": "[ -e {0}/ended ] || [ ! -e {0}/queued ] || echo 17 RUNNING None",
}


@pytest.fixture
def queue(tmp_path: Path, fake: Path) -> Path:
    for name, script in QUEUE.items():
        program(fake / name, script.format(tmp_path))
    return tmp_path


def test_a_submission_that_timed_out_is_found_again(queue: Path, fake: Path) -> None:
    program(fake / "sbatch", f"touch {queue}/queued; echo 'sbatch: error: Socket timed out' >&2; exit 1")
    driver = Sweep(["train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep"], queue, queue / "log")
    driver.wait_until(lambda: "array   17" in (queue / "log").read_text())
    assert json.loads((queue / "sweep" / "slurm.json").read_text())["arrays"][0]["id"] == "17"
    (queue / "ended").touch()
    assert driver.process.wait(60) == 1
    assert "0 of 6 jobs failed, and 6 were not started" in (queue / "log").read_text()


def test_jobs_that_end_between_two_looks_are_done(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are done before the command looks for the first time."""
    written = grulab(queue, "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep", "--only-write")
    assert written.returncode == 0, written.stderr
    command = f"{sys.executable} -P -m grulab work sweep --slice 0/1 > work.log"
    program(queue / "programs" / "sbatch", f"cd {queue}; {command}; echo 17")
    process = grulab(queue, "resume", "sweep", *SLURM)
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(done_jobs(queue / "sweep")) == 6


def test_an_array_that_is_left_is_not_submitted_anew_by_who_joined_it(queue: Path) -> None:
    driver = Sweep(["train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep"], queue, queue / "log")
    driver.wait_until(lambda: "array   17" in (queue / "log").read_text())
    driver.process.kill()
    driver.process.wait()
    joined = Sweep(["resume", "sweep"], queue, queue / "log")
    joined.wait_until(lambda: "joins   array 17" in (queue / "log").read_text())
    (queue / "ended").touch()
    assert joined.process.wait(60) == 1
    assert (queue / "submitted").read_text().count("\n") == 1
    # Nor does another launcher start beside it.
    (queue / "ended").unlink()
    beside = grulab(queue, "resume", "sweep", "hydra/launcher=local")
    assert beside.returncode == 2
    assert "array 17 of this sweep is in SLURM's queue (1 running)" in beside.stderr


@pytest.mark.parametrize(
    ("name", "script", "message"),
    [
        ("sbatch", "printf 'x\\033]0;pwn\\007\\n'", "sbatch: has printed "),
        ("sbatch", "true", "sbatch: has printed '' and no number"),
        ("sbatch", "printf '\\xff\\xfe' >&2; exit 1", "sbatch: "),
        ("squeue", "printf '\\xff\\xfe' >&2; exit 1", "squeue: "),
    ],
)
def test_nonsense_of_slurm_is_one_line(queue: Path, fake: Path, name: str, script: str, message: str) -> None:
    program(fake / name, script)
    process = forked(queue, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep")
    assert process.returncode == 2, process.stdout
    assert process.stderr.startswith(f"grulab: hydra/launcher=slurm: {message}")
    assert process.stderr.count("\n") == 1
    assert "\x1b" not in process.stdout + process.stderr
    assert not (queue / "sweep").exists()


def test_what_a_user_has_in_the_folder_stays(queue: Path, fake: Path) -> None:
    written = grulab(queue, "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep", "--only-write")
    assert written.returncode == 0, written.stderr
    before = (queue / "sweep" / "sweep.json").read_bytes()
    program(fake / "sbatch", "echo 'sbatch: error: no' >&2; exit 1")
    (queue / "sweep" / "slurm").mkdir()
    (queue / "sweep" / "slurm" / "notes.txt").write_text("mine")
    refused = grulab(queue, "resume", "sweep", *SLURM, "hydra.launcher.partition=nope")
    assert refused.returncode == 2
    assert (queue / "sweep" / "slurm" / "notes.txt").read_text() == "mine"
    # Nor is the mistake remembered.
    assert (queue / "sweep" / "sweep.json").read_bytes() == before
    (queue / "sweep" / "slurm.sh").write_text("echo mine")
    refused = grulab(queue, "resume", "sweep", *SLURM)
    assert refused.returncode == 2
    assert "slurm.sh: was not written by grulab" in refused.stderr
    assert (queue / "sweep" / "slurm.sh").read_text() == "echo mine"


def test_the_name_of_a_folder_is_no_option_of_sbatch(queue: Path) -> None:
    """A folder, with its arguments, may come from a stranger."""
    written = grulab(queue, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir=sweep", "--only-write")
    assert written.returncode == 0, written.stderr
    (queue / "sweep").rename(queue / "--wrap=id")
    process = Sweep(["resume", "./--wrap=id"], queue, queue / "log")
    process.wait_until(lambda: "array   17" in (queue / "log").read_text())
    (queue / "ended").touch()
    process.process.wait(60)
    assert (queue / "submitted").read_text().endswith(f" -- {queue}/--wrap=id/slurm.sh\n")


def test_a_search_ends_when_its_tasks_do_nothing(queue: Path) -> None:
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=8", "optimizer.lr=interval(0.001,0.1)"]
    driver = Sweep(["train", "-m", *SMALL, *search, *SLURM, "hydra.sweep.dir=sweep"], queue, queue / "log")
    driver.wait_until(lambda: "array   17" in (queue / "log").read_text())
    (queue / "ended").touch()
    assert driver.process.wait(60) == 1, (queue / "log").read_text()
    assert (queue / "submitted").read_text().count("\n") == 1


def test_the_command_that_goes_on_says_again_what_is_taken_from_no_file(queue: Path) -> None:
    setup = "hydra.launcher.setup=['module load x']"
    began = forked(
        queue, "train", "-m", *SIX_JOBS, *SLURM, setup, "hydra.launcher.wait=false", "hydra.sweep.dir=sweep"
    )
    assert began.returncode == 0, began.stderr
    assert f'return  grulab resume sweep "{setup}"' in began.stdout
    assert "module load x" in (queue / "sweep" / "slurm.sh").read_text()
    # Who resumes waits, and needs what he was told to say.
    refused = forked(queue, "resume", "sweep")
    assert refused.returncode == 2
    assert "is not taken from a file" in refused.stderr
    (queue / "ended").touch()
    assert "array   17" in grulab(queue, "resume", "sweep", setup).stdout


def test_a_folder_that_sbatch_cannot_write_is_refused(tmp_path: Path, fake: Path) -> None:
    program(fake / "sbatch", "echo 1")
    process = forked(tmp_path, "train", "-m", *SIX_JOBS, *SLURM, "hydra.sweep.dir='100%'")
    assert process.returncode == 2
    assert "sbatch has a use of its own for %" in process.stderr


def test_the_script_is_what_its_settings_say(tmp_path: Path, fake: Path) -> None:
    program(fake / "sbatch", "echo 1")
    values = SETTINGS | {
        "partition": "gpu,long", "account": "lab", "time": "2-00:30:00", "cpus_per_task": 4, "gpus_per_task": 1,
        "mem": "8G", "constraint": "a100|h100", "at_once": 3, "setup": ["module load python"], "sbatch": ["--qos=x"],
    }  # fmt: skip
    settings = slurm_settings.parse_settings(values)
    (tmp_path / "it's").mkdir()
    path, options = write_script(tmp_path / "it's", "grulab-x", settings, [0, 1, 2, 5], 8, ["--config-dir=a b"])
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in [
        "#SBATCH --array=0-2,5%3",
        "#SBATCH --partition=gpu,long",
        "#SBATCH --account=lab",
        "#SBATCH --time=2-00:30:00",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --mem=8G",
        "#SBATCH --constraint=a100|h100",
        f'#SBATCH --output="{tmp_path}/it\'s/slurm/%A_%a.log"',
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR1@60",
        "#SBATCH --requeue",
        "#SBATCH --qos=x",
        "module load python",
    ]:
        assert line in lines
    # On the command line they count more than what SBATCH_PARTITION and the like say.
    assert "--partition=gpu,long" in options
    assert f"--output={tmp_path}/it's/slurm/%A_%a.log" in options
    assert options[-1] == "--qos=x"
    assert lines[-1].startswith("exec ")
    assert lines[-1].endswith("""--slice "$SLURM_ARRAY_TASK_ID/8" --requeue '--config-dir=a b'""")
    assert "it'\"'\"'s" in lines[-1]


@pytest.mark.parametrize(
    ("time_limit", "seconds"),
    [(None, 60), (1, 20), ("30", 60), ("0:30", 10), ("1:00:00", 60), ("1-0", 60), (2, 40)],
)
def test_a_short_task_is_warned_later(fake: Path, time_limit: object, seconds: int) -> None:
    program(fake / "sbatch", "echo 1")
    settings = slurm_settings.parse_settings(SETTINGS | {"time": time_limit})
    assert settings.seconds_of_warning() == seconds


def test_the_number_of_tasks(fake: Path) -> None:
    program(fake / "sbatch", "echo 1")

    def tasks(jobs: int, **values: int) -> int:
        return slurm_settings.parse_settings(SETTINGS | values).tasks_for(jobs)

    assert tasks(36) == 8
    assert tasks(3) == 3
    assert tasks(36, tasks=4) == 4
    assert tasks(36, jobs_per_task=10) == 4


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_each_number_once(numbers: set[int]) -> None:
    found = []
    for part in filter(None, ranges(list(numbers)).split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"job_name": "x; scancel", "arrays": []}', '{"job_name": "grulab-a", "arrays": [{"id": "-u"}]}'],
)
def test_an_odd_slurm_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "slurm.json").write_text(content)
    with pytest.raises(ConfigError, match=r"slurm\.json: cannot be read"):
        read_submissions(tmp_path, "x")


def test_the_last_words_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text("first\nthe \x1b[31mend\n\n")
    (tmp_path / "1.log").write_text("x" * 10_000)
    (tmp_path / "2.log").symlink_to("/etc/passwd")
    lines = last_words({index: tmp_path / f"{index}.log" for index in range(5)})
    assert lines[0].startswith("0: the ")
    assert "\x1b" not in lines[0]
    assert lines[1] == f"1: {'x' * 300}"
    assert "is a link" in lines[2]
    assert lines[3].startswith("3: has left no")
