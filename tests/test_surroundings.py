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
