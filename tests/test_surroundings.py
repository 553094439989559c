"""What surrounds a run - variables of schedulers, names of folders, closed streams - changes nothing in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL, grulab


@pytest.mark.parametrize("name", ["SLURM_PROCID", "RANK", "LOCAL_RANK", "JSM_NAMESPACE_RANK"])
def test_a_run_is_one_process_whatever_its_rank(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    process = grulab(tmp_path, "train", *SMALL, "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_nothing_is_expanded_in_the_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("$NAME", "~", "a~b", "~root"):
        process = grulab(tmp_path, "train", *SMALL, f"hydra.run.dir='{folder}'")
        assert process.returncode == 0, process.stderr
        assert list((tmp_path / folder / "tensorboard").glob("events.out.tfevents.*")), folder
    # matplotlib and others make their caches in the home folder.
    made = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert made == {"$NAME", "~", "a~b", "~root"}
    assert not list((tmp_path / "home").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_end_nothing(closed: str, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("grulab")
    small = " ".join(SMALL)
    for command in (
        f"train {small} hydra.run.dir=run",
        "resume run trainer.max_epochs=3",
        f"train -m {small} seed=0,1 hydra.sweep.dir=sweep",
        "resume sweep",
        "trace run",
        "report sweep",
    ):
        process = subprocess.run(
            f"{program} {command} {closed}", shell=True, cwd=tmp_path, env=dict(os.environ), timeout=300, check=False
        )
        assert process.returncode == 0, command


def test_a_tool_that_is_there_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning warns where srun is installed and not used."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    process = grulab(tmp_path, "train", *SMALL, "hydra.run.dir=run")
    assert (process.returncode, process.stderr) == (0, "")
    assert "srun" not in process.stdout


def test_a_failed_run_is_one_line_and_where_its_traceback_is(tmp_path: Path) -> None:
    """Hydra's own callbacks still learn how the job ended."""
    callback = "import hydra.experimental.callback as c\nclass Ended(c.Callback):\n"
    callback += (
        "    def on_job_end(self, config, job_return, **_): open('ended', 'w').write(job_return.status.name)\n"
    )
    (tmp_path / "ended_callback.py").write_text(callback)
    process = grulab(
        tmp_path, "train", *SMALL, "data.train_size=320", "trainer.max_epochs=50", "optimizer.lr=2e37",
        "hydra.run.dir=run", "+hydra.callbacks.ended._target_=ended_callback.Ended",
        program="import sys; sys.path.insert(0, ''); from grulab.cli import main; sys.exit(main(sys.argv[1:]))",
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "grulab: NonFiniteLossError: the loss is inf at step 1: lower optimizer.lr or set trainer.gradient_clip_val",
        "grulab: the traceback is in run/summary.json, and GRULAB_TRACEBACK=1 shows it here",
    ]
    assert (tmp_path / "ended").read_text() == "FAILED"


def test_too_many_workers_are_a_note(tmp_path: Path) -> None:
    program = (
        "import sys, grulab.config.notes as notes; from grulab.cli import main; notes.available_cores = lambda: 1\n"
    )
    program += "import os; os.sched_getaffinity = lambda pid: {0}; sys.exit(main(sys.argv[1:]))"
    process = grulab(tmp_path, "train", *SMALL, "data.num_workers=2", "hydra.run.dir=run", program=program)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines()[0] == (
        "data.num_workers=2 is more than the 1 cores that this process may use: the workers wait for each other"
    )
