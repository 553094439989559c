"""A full disk: one line with the command that goes on, and nothing that was there is damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.sweeps.harness import leaderboard

from grulab.system.atomic import write_atomically
from tests.conftest import FAULTS, SMALL, grulab, statuses

SWEEP = ["train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep"]

# The grulab program on a disk that has no room for a file with this in its name.
FULL = """
import pathlib, sys
from grulab.cli import main

original = pathlib.Path.open

def open_(self, mode="r", *args, **kwargs):
    if %r in self.name and "r" not in mode:
        raise OSError(28, "No space left on device", str(self))
    return original(self, mode, *args, **kwargs)

pathlib.Path.open = open_
sys.exit(main(sys.argv[1:]))
"""


def test_jobs_that_find_the_disk_full_say_so(tmp_path: Path) -> None:
    process = grulab(tmp_path, *SWEEP, program=FAULTS % {0: "full"})
    assert process.returncode == 1
    assert process.stdout.count("failed  000_seed-0  DiskFullError: the disk is full") == 1
    assert process.stderr == (
        "grulab: SweepFailedError: 1 of 2 jobs failed; the disk is full; make room, then "
        "grulab resume sweep goes on with all that are left\n"
    )
    assert statuses(tmp_path / "sweep") == ["failed", "done"]
    assert grulab(tmp_path, "resume", "sweep").returncode == 0


def test_a_job_that_cannot_write_at_all_says_so_too(tmp_path: Path) -> None:
    process = grulab(tmp_path, *SWEEP, program=FULL % "summary.json")
    assert process.returncode == 1
    assert process.stdout.count("DiskFullError: the disk is full") >= 2
    assert len(process.stderr.splitlines()) == 1
    assert "the disk is full; make room, then grulab resume sweep" in process.stderr
    assert grulab(tmp_path, "resume", "sweep").returncode == 0


def test_a_sweep_that_could_not_begin_begins_when_there_is_room(tmp_path: Path) -> None:
    process = grulab(tmp_path, *SWEEP, program=FULL % "sweep.json")
    assert process.returncode == 1
    assert process.stderr == "grulab: DiskFullError: sweep: the disk is full; make room, then start it again\n"
    assert grulab(tmp_path, *SWEEP).returncode == 0


def test_reports_and_traces_name_the_command_to_repeat(tmp_path: Path) -> None:
    process = grulab(tmp_path, *SWEEP, program=FULL % "leaderboard")
    line = "grulab: DiskFullError: {}: the disk is full; make room, then go on with {}\n"
    assert (process.returncode, process.stderr) == (1, line.format("sweep", "grulab resume sweep"))
    process = grulab(tmp_path, "report", "sweep", program=FULL % "leaderboard")
    assert (process.returncode, process.stderr) == (1, line.format("sweep", "grulab report sweep"))
    run = "sweep/000_seed-0"
    process = grulab(tmp_path, "trace", run, program=FULL % "trace.md")
    assert (process.returncode, process.stderr) == (1, line.format(run, f"grulab trace {run}"))
    assert grulab(tmp_path, "report", "sweep").returncode == 0


def test_half_a_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def half(path: Path) -> None:
        path.write_bytes(b"ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grulab.system.atomic.create", half)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# A sweep on a file system that is too small, and its resume when there is room: sh -c SCRIPT sh OPTIONS GRULAB ...
SMALL_DISK = """
mkdir disk && mount -t tmpfs -o "$1" tmpfs disk && cd disk || exit 77
shift
"$@"
code=$?
mount -o remount,size=20m,nr_inodes=10000 . && "$1" resume sweep > ../resumed 2>&1 && cp -r sweep .. || exit 78
exit $code
"""


@pytest.mark.parametrize("options", ["size=400k", "nr_inodes=60,size=20m", "nr_inodes=4,size=20m"])
def test_a_sweep_on_a_small_disk_ends_like_one_with_room(tmp_path: Path, options: str) -> None:
    program = str(Path(sys.executable).with_name("grulab"))
    arguments = ["train", "-m", *SMALL, "seed=0,1,2,3", "hydra.sweep.dir=sweep"]
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run(
        [*unshare, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("needs the right to mount a tmpfs")
    process = subprocess.run(
        [*unshare, SMALL_DISK, "sh", options, program, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    assert process.stderr == (
        "grulab: DiskFullError: sweep: the disk is full; make room, then go on with grulab resume sweep\n"
    )
    (tmp_path / "alone").mkdir()
    assert grulab(tmp_path / "alone", *arguments).returncode == 0
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone" / "sweep")
