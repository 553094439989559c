"""Sweeps from the command line: they finish, can be resumed, and never run a finished job again."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from experiments.sweeps.harness import done_jobs, leaderboard

from grulab.sweep import manifest
from grulab.sweep.compose_jobs import compose_sweep
from tests.conftest import FAULTS, SMALL, grulab

LAUNCHERS = ["local", "basic", "joblib"]


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
    # The sweep's output ends with its leaderboard.
    output = (finished.parent / "output").read_text()
    assert "4 jobs: 4 to do, " in output
    assert "4 jobs: 4 done" in output
    assert (finished / "report.html").is_file()
    again = grulab(finished.parent, "report", "sweep")
    assert again.returncode == 0
    assert again.stdout.strip() == output[output.index("Recommendation") :].strip()


def test_a_job_of_a_sweep_is_the_run_that_its_overrides_make(finished: Path, tmp_path: Path) -> None:
    """A forked job with its share of the cores computes the same bits as grulab train."""
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
        "put it back, or begin another sweep with grulab train -m",
        "grulab: optimizer.lr=0.5: the sweep in sweep has 0.02 (in every job); "
        "put it back, or begin another sweep with grulab train -m",
    ]
    other = grulab(finished.parent, *base, "model.hidden_size=4,16", "seed=0,1")
    assert other.returncode == 2
    assert "leaves out 2 of them, the first is 002_hidden_size-8_seed-0; a sweep grows and does not" in other.stderr
    assert "name them too: model.hidden_size=4,8,16," in other.stderr
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
    # Torch, which takes a second to import, is not imported for this.
    program = "import sys; from grulab.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules"
    process = grulab(
        tmp_path, "train", "-m", "experiment=architecture", "seed=0,1,-1", "model.dropout=0",
        program=f"{program}; sys.exit(code)",
    )  # fmt: skip
    assert process.returncode == 2, process.stderr
    lines = process.stderr.splitlines()
    assert lines[0] == "grulab: seed=-1: must be at least 0, in 12 of 36 jobs:"
    assert "job 35: model.hidden_size=32 model.num_layers=2 model.bidirectional=True seed=-1" in lines[-1]
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_folders_of_ones_own_making(tmp_path: Path) -> None:
    """${now:} in hydra.sweep.dir is resolved once for a sweep, and the report finds jobs in nested folders."""
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
    """The configuration of every job is fixed when the sweep starts; resuming with another one is refused."""
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\n")
    arguments = ["--config-dir", "mine", "experiment=e", *SMALL, "seed=0,1", "hydra.launcher.cores=1"]
    edit = f"open({str(mine / 'e.yaml')!r}, 'w').write('# @package _global_\\nmodel: {{hidden_size: 5}}\\n')"
    program = FAULTS % {0: "edit"}
    program = program.replace('"held": until_released', f'"edit": lambda: {edit}')
    process = grulab(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=sweep", program=program)
    assert process.returncode == 0, process.stderr
    sizes = [
        json.loads(path.read_text())["config"]["model"]["hidden_size"]
        for path in sorted((tmp_path / "sweep").glob("0*/summary.json"))
    ]
    assert sizes == [4, 4]
    again = grulab(tmp_path, "resume", "sweep", "--config-dir", "mine")
    assert again.returncode == 2
    assert "model.hidden_size=5: the sweep in sweep has 4 (in every job)" in again.stderr
    # A change that resume would accept on the command line is refused when it comes from a file.
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\ntrainer: {gradient_clip_val: null}\n")
    assert grulab(tmp_path, "resume", "sweep", "--config-dir", "mine").returncode == 0
    (mine / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\ndata: {num_workers: 1}\n")
    longer = grulab(tmp_path, "resume", "sweep", "--config-dir", "mine")
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
    # The manifest now holds the longer jobs.
    again = grulab(tmp_path, "resume", "short", "--plan")
    assert "2 jobs: 2 done" in again.stdout
    # A job short of max_epochs has no result; a job at max_epochs stays done with another early stopping.
    plan = grulab(tmp_path, "resume", "short", "--plan", "trainer.max_epochs=9")
    assert "2 jobs: 2 to extend" in plan.stdout
    before = (tmp_path / "short/sweep.json").read_bytes()
    shorter = grulab(tmp_path, "resume", "short", "trainer.max_epochs=3")
    assert shorter.returncode == 2
    assert shorter.stderr == "grulab: trainer.max_epochs=3: 4 epochs of 000_seed-0 are done already\n"
    assert (tmp_path / "short/sweep.json").read_bytes() == before
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
    # A job that went on alone is reported as what it is.
    assert grulab(tmp_path, "resume", "short/000_seed-0", "trainer.max_epochs=40").returncode == 0
    reported = grulab(tmp_path, "report", "short").stdout
    assert "1 of them went on to another number of epochs than the sweep says" in reported
    best = re.search(r"once more   (grulab train .*)", reported)
    assert best is not None
    assert best[1].endswith(" trainer.max_epochs=40") == ("000_seed-0: val/accuracy" in reported)


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
