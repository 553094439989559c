"""A multirun with Hydra's own launcher, as users start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import SMALL


def grulab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("GRULAB_TRACEBACK", "HYDRA_FULL_ERROR")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("grulab")), *arguments],
        cwd=folder, capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def test_a_sweep_gives_each_job_its_folder(tmp_path: Path) -> None:
    process = grulab(
        tmp_path, "train", "-m", "experiment=architecture", *SMALL,
        "model.hidden_size=4,8", "model.num_layers=1", "seed=0", "trainer.max_epochs=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    (sweep,) = (tmp_path / "outputs" / "sweeps" / "architecture").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.name[0] == "0")
    assert [job.name for job in jobs] == [
        "000_hidden_size-4_bidirectional-false",
        "001_hidden_size-4_bidirectional-true",
        "002_hidden_size-8_bidirectional-false",
        "003_hidden_size-8_bidirectional-true",
    ]
    for job in jobs:
        assert json.loads((job / "summary.json").read_text())["status"] == "done"
        assert {path.name for path in job.iterdir()} == {
            ".hydra", ".owner", "checkpoints", "metrics.csv", "run.log", "summary.json", "tensorboard",
        }  # fmt: skip
        assert "result  test accuracy" in (job / "run.log").read_text()
    assert not list(sweep.glob("*/*/hparams.yaml"))
    # It ends with what it has found.
    assert "4 jobs: 4 done" in process.stdout
    assert (sweep / "report.html").is_file()
    again = grulab(tmp_path, "report", str(sweep))
    assert again.returncode == 0
    assert again.stdout.strip() == process.stdout[process.stdout.index("Leaderboard") :].strip()


def test_a_failed_job_leaves_its_traceback_and_the_others_finish(tmp_path: Path) -> None:
    process = grulab(
        tmp_path, "train", "-m", *SMALL, "trainer.max_epochs=50", "data.train_size=320",
        "optimizer.lr=2e37,0.01", "hydra.sweep.dir=out",
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == "grulab: SweepFailedError: 1 of 2 jobs failed; grulab resume out tries them again\n"
    assert process.stdout.count("failed  000_lr-2e37  NonFiniteLossError: the loss is inf at step 1") == 1
    assert "Traceback" not in process.stderr + process.stdout
    assert "2 jobs: 1 failed, 1 done" in process.stdout
    bad, good = sorted(path for path in (tmp_path / "out").iterdir() if path.name[0] == "0")
    assert (bad.name, good.name) == ("000_lr-2e37", "001_lr-0.01")
    assert json.loads((bad / "summary.json").read_text())["status"] == "failed"
    assert "Traceback" in (bad / "run.log").read_text()
    assert json.loads((good / "summary.json").read_text())["status"] == "done"


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
