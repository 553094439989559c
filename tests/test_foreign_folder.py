"""A folder from somebody else is data: nothing in it runs code, hangs, or is written through."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grulab import resume
from grulab.config_error import ConfigError
from grulab.report.sweep_report import write_report
from grulab.report.trace import trace
from grulab.run_folder.stored_config import stored_config
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from tests.conftest import SMALL, Run, forked, grulab

# Hydra would import and call this.
CALL = "{_target_: os.mkdir, path: executed}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished sweep of two jobs."""
    folder = tmp_path_factory.mktemp("sweeps")
    process = forked(folder, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    return folder / "sweep"


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "sweep"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "argument",
    [
        f"+hydra.callbacks.x={CALL}",
        f"++hydra.callbacks.x={CALL}",
        f"+hydra.launcher.x={CALL}",
        f"hydra.launcher.cores={CALL}",
        f"hydra.sweeper.params={CALL}",
        f"+hydra={{callbacks: {{x: {CALL}}}}}",
        "hydra.launcher._target_=os.mkdir",
        "hydra.searchpath=[pkg://antigravity]",
        "hydra.job_logging.handlers.console.class=os.mkdir",
        "+hydra/callbacks=x",
        "+x@hydra.callbacks=y",
        "data@hydra.callbacks.x=sinusoids",
        "experiment=../../tmp/x",
        "experiment=/tmp/x",
        "hydra/launcher=../x",
        "--config-dir=mine",
        "--config-path=mine",
        "--experimental-rerun=x.pickle",
        "--config-name=../x",
        "name=${oc.env:HOME}",
        "name=${data.task}${data.task}",
        "hydra.sweeper.params={experiment: '../../x'}",
        "hydra.sweeper.params.experiment='../../x'",
        f"hydra.sweeper.params={{'+hydra.callbacks.x': '{CALL}'}}",
        "hydra.sweeper.params._target_=pandas.read_pickle",
        "hydra.sweeper.max_jobs=1000000000",
        "hydra.sweep.subdir='${oc.env:HOME}'",
        "hydra/job_logging=default",
        "hydra.output_subdir=../elsewhere",
        f"data.frequencies=[{','.join(10_000 * ['0.1'])}]",
    ],
)
def test_arguments_of_a_sweep_run_no_code(sweep: Path, argument: str) -> None:
    mine = sweep.parent / "mine"
    mine.mkdir()
    (mine / "x.yaml").write_text(f"hydra: {{callbacks: {{x: {CALL}}}}}\n")
    edit(sweep / "sweep.json", lambda content: content["arguments"].append(argument))
    process = forked(sweep.parent, "resume", "sweep")
    assert process.returncode == 2, process.stdout
    assert process.stderr.startswith("grulab: sweep/sweep.json: "), process.stderr[:300]
    assert "since it could run code" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not (sweep.parent / "executed").exists()


def test_a_report_follows_no_argument(sweep: Path) -> None:
    before = (sweep / "sweep.json").read_text()
    edit(sweep / "sweep.json", lambda content: content["arguments"].append(f"+hydra.callbacks.x={CALL}"))
    assert forked(sweep.parent, "report", "sweep").returncode == 0
    assert not (sweep.parent / "executed").exists()
    (sweep / "sweep.json").write_text(before)
    assert forked(sweep.parent, "resume", "sweep").returncode == 0


def test_who_says_it_on_the_command_line_is_trusted(sweep: Path) -> None:
    argument = f"+hydra.callbacks.x={CALL}"
    edit(sweep / "sweep.json", lambda content: content["arguments"].append(argument))
    process = grulab(sweep.parent, "resume", "sweep", argument)
    assert process.returncode == 0, process.stderr
    assert (sweep.parent / "executed").is_dir()


def test_a_stored_config_dir_is_said_again(tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "e.yaml").write_text("# @package _global_\nmodel: {hidden_size: 4}\n")
    arguments = ["--config-dir", "mine", "experiment=e", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep"]
    assert forked(tmp_path, "train", "-m", *arguments).returncode == 0
    process = forked(tmp_path, "resume", "sweep", "trainer.max_epochs=3")
    assert process.returncode == 2
    command = process.stderr.rsplit("say it yourself: grulab ", 1)[1].split()
    assert command[-1] == "trainer.max_epochs=3"
    again = forked(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    # The command after a failure has it too.
    failed = forked(tmp_path, "train", "-m", *arguments[:-1], "optimizer.lr=2e37", "hydra.sweep.dir=failing")
    assert failed.returncode == 1
    assert "; grulab resume failing --config-dir=mine goes on with all that are left" in failed.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(git=3),
        lambda content: content.update(jobs=3),
        lambda content: content.update(arguments=[1]),
        lambda content: content["jobs"][0].update(folder="../elsewhere"),
        lambda content: content["jobs"][0].update(folder="/tmp/elsewhere"),
        lambda content: content["jobs"][0].update(folder=content["jobs"][1]["folder"]),
        lambda content: content["jobs"][0].update(number=1),
        lambda content: content["jobs"][0].update(overrides=[f"+hydra.callbacks.x={CALL}"]),
        lambda content: content["jobs"][0].update(config={"seed": [[[[[0]]]]]}),
    ],
)
def test_an_odd_sweep_json_is_named(sweep: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(sweep / "sweep.json", change)
    with pytest.raises(ConfigError, match=r"sweep.json: cannot be read \(.+\); if it is a sweep") as caught:
        manifest.read(sweep)
    assert "\n" not in str(caught.value)


def test_deep_json_is_no_recursion(sweep: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (sweep / "sweep.json").write_text(deep)
    with pytest.raises(ConfigError, match=r"sweep.json: cannot be read"):
        manifest.read(sweep)
    job = next(sweep.glob("000*"))
    (job / "summary.json").write_text(deep)
    assert read_summary(job) is None


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a\n",
        "name: ${oc.env:HOME}\n",
        "name: ${nope}\n",
        "name: ${a}\na: ${b}\nb: 1\n",
        "[1]\n",
        "a: !!python/object/apply:os.mkdir [executed]\n",
        "a: " + "[" * 5000 + "]" * 5000 + "\n",
        "a: " + "x" * 2**21 + "\n",
        "name: \xff",
    ],
)
def test_the_file_of_hydra_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config.yaml: cannot be read \(.+\); begin anew"):
        stored_config(tmp_path / "run")
    assert not (tmp_path / "executed").exists()


def test_the_file_of_hydra_is_enough(run: Run, tmp_path: Path) -> None:
    process = forked(tmp_path, "train", *SMALL, "model.parameter_budget=500", "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr
    config = stored_config(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert stored_config(tmp_path / "run") == config


def kinds(path: Path) -> Iterator[str]:
    """Put other kinds of things in the place of a file, and name each."""
    for kind in ("fifo", "folder", "loop", "full", "zero", "huge", "link"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "huge":
            with path.open("wb") as file:
                file.truncate(2**40)
        else:
            precious = path.parents[2] / "precious"
            precious.write_text("mine")
            path.symlink_to({"full": "/dev/full", "zero": "/dev/zero"}.get(kind, str(precious)))
        yield kind


def refusal_of(run_dir: Path) -> str | None:
    """Resume a run; return the message if it is refused."""
    try:
        resume(run_dir)
    except (ConfigError, OSError, RuntimeError) as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "name",
    [
        "summary.json",
        "metrics.csv",
        "run.log",
        ".owner",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "checkpoints/.writing.ckpt",
        "checkpoints/.copying.ckpt",
        ".summary.json.tmp",
        ".metrics.csv.tmp",
        "tensorboard/events.out.tfevents.0.x",
        "tensorboard/cutting",
    ],
)
def test_what_is_no_regular_file_is_named(stopped: Path, tmp_path: Path, name: str) -> None:
    """A resume is exact or refused: it never hangs, reads without end, or writes through a link."""
    for kind in kinds(stopped / name):
        began = time.monotonic()
        refusal = refusal_of(stopped)
        assert refusal is None or (Path(name).name in refusal and "\n" not in refusal), (kind, refusal)
        assert time.monotonic() - began < 20, kind
        if (tmp_path / "precious").exists():
            assert (tmp_path / "precious").read_text() == "mine", kind


def test_a_report_is_not_written_through_a_link(sweep: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("figures/effects.png", "figures", "leaderboard.csv", "report.html"):
        path = sweep / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(precious)
        with pytest.raises(ConfigError, match=r"is a link, and grulab writes .* there; remove it"):
            write_report(sweep)
        assert precious.read_text() == "mine"
        path.unlink()
        write_report(sweep)


def test_a_trace_is_not_written_through_a_link(run: Run, tmp_path: Path) -> None:
    run("run")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "events.out.tfevents.0").write_text("mine")
    (tmp_path / "run" / "trace").symlink_to(precious)
    with pytest.raises(ConfigError, match=r"trace: is a link"):
        trace(tmp_path / "run")
    assert (precious / "events.out.tfevents.0").read_text() == "mine"


def test_a_spoilt_job_folder_is_a_failure_of_its_own(tmp_path: Path) -> None:
    """The other jobs of its sweep go on, and the report names the cause."""
    process = forked(tmp_path, "train", "-m", *SMALL, "seed=range(7)", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    sweep = tmp_path / "sweep"
    jobs = sorted(sweep.glob("00*"))
    for job in (jobs[0], jobs[1], jobs[4]):
        shutil.rmtree(job)
    jobs[0].write_text("a file")
    jobs[1].symlink_to(jobs[1].name)
    (jobs[2] / "summary.json").unlink()
    (jobs[2] / "summary.json").mkdir()
    (jobs[3] / "metrics.csv").unlink()
    shutil.copytree(jobs[6], jobs[4])
    edit(jobs[5] / "summary.json", lambda content: content.update(status="failed", error=["odd"]))

    causes = [
        "its folder is a file",
        "its folder is a link",
        "summary.json: is a folder, and grulab writes a regular file there",
        "seed=4: the run in its folder has 6",
        "metrics.csv is missing or damaged",
    ]
    report = forked(tmp_path, "report", "sweep")
    assert (report.returncode, report.stderr) == (0, "")
    assert "7 jobs: 5 failed, 2 done" in report.stdout or "7 jobs: 2 done, 5 failed" in report.stdout, report.stdout
    assert all(cause in report.stdout for cause in causes), report.stdout

    resumed = forked(tmp_path, "resume", "sweep")
    assert resumed.returncode == 1
    assert resumed.stderr.count("\n") == 1
    # An odd summary.json is written again; a folder in its place is for its owner to remove.
    assert "4 of 7 jobs failed" in resumed.stderr
    assert "Traceback" not in resumed.stdout
    statuses = manifest.read(sweep)
    assert statuses is not None
    assert (read_summary(jobs[5]) or {})["status"] == "done"
    for job in (jobs[0], jobs[1]):
        job.unlink()
    shutil.rmtree(jobs[4])
    (jobs[2] / "summary.json").rmdir()
    assert forked(tmp_path, "resume", "sweep").returncode == 0


def test_a_done_job_may_lie_elsewhere(sweep: Path, tmp_path: Path) -> None:
    """Only a job that is still to be written to needs a folder of its own."""
    job = next(sweep.glob("000*"))
    job.rename(tmp_path / "elsewhere")
    job.symlink_to(tmp_path / "elsewhere")
    process = forked(sweep.parent, "resume", "sweep")
    assert process.returncode == 0, process.stderr
    assert "2 jobs: 2 done" in process.stdout


def test_a_choice_in_a_folder_of_a_group_is_a_sweep_like_others(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "experiment" / "sub" / "e.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nmodel: {hidden_size: 4}\n")
    arguments = ["--config-dir", "mine", "experiment=sub/e", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep"]
    process = forked(tmp_path, "train", "-m", *arguments)
    assert process.returncode == 0, process.stderr
    refused = forked(tmp_path, "resume", "sweep")
    # All that has to be said again, in one command.
    command = refused.stderr.rsplit("say it yourself: grulab ", 1)[1].split()
    assert command[2:] == [f"--config-dir={tmp_path / 'mine'}", "experiment=sub/e"]
    assert forked(tmp_path, *command).returncode == 0


def test_nothing_is_written_below_a_link_in_a_sweep(sweep: Path, tmp_path: Path) -> None:
    """Neither by our launcher nor by another one, which would not look."""
    shutil.rmtree(sweep)
    (tmp_path / "victim").mkdir()
    arguments = [
        "train",
        "-m",
        *SMALL,
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir='a/${hydra.job.num}'",
    ]
    assert forked(tmp_path, *arguments).returncode == 0
    shutil.rmtree(sweep / "a")
    (sweep / "a").symlink_to(tmp_path / "victim")
    for launcher in ("local", "basic"):
        process = forked(tmp_path, "resume", "sweep", f"hydra/launcher={launcher}")
        assert process.returncode in (1, 2)
        assert "its folder is a link" in process.stdout + process.stderr
        assert list((tmp_path / "victim").iterdir()) == []


def test_jobs_lie_in_the_folder_of_their_sweep(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    process = forked(tmp_path / "empty", "train", "-m", "seed=0,1", "hydra.sweep.subdir='../x${hydra.job.num}'")
    assert process.returncode == 2
    assert "the folder ../x0 is outside the sweep's" in process.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_sweep_json_without_jobs_gets_those_of_its_command(sweep: Path) -> None:
    edit(sweep / "sweep.json", lambda content: content.update(jobs=[]))
    process = forked(sweep.parent, "resume", "sweep")
    assert process.returncode == 0, process.stderr
    assert "2 jobs: 2 done" in process.stdout


def test_a_linked_checkpoint_leads_no_trace_elsewhere(run: Run, tmp_path: Path) -> None:
    run("victim")
    run("run")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    best.unlink()
    best.symlink_to(tmp_path / "victim" / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match=r"best.ckpt: is a link"):
        trace(tmp_path / "run")
    assert not (tmp_path / "victim" / "trace").exists()


@pytest.mark.parametrize("value", ["1e9", "inf", "nan", "-1e300"])
def test_odd_numbers_in_a_table_are_no_curve(run: Run, tmp_path: Path, value: str) -> None:
    run("run")
    path = tmp_path / "run" / "metrics.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[5] = value
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    assert "Training trace" in (trace(tmp_path / "run") / "trace.md").read_text()


def test_what_is_printed_has_no_escapes(sweep: Path) -> None:
    edit(sweep / "sweep.json", lambda content: content["versions"].update(torch="\x1b[31m2.0\x07"))
    process = forked(sweep.parent, "resume", "sweep")
    assert process.returncode == 0, process.stderr
    assert "\\x1b[31m2.0\\x07" in process.stdout
    assert "\x1b" not in process.stdout
    edit(sweep / "sweep.json", lambda content: content["arguments"].append("--evil\x1b[31m\n"))
    process = forked(sweep.parent, "report", "sweep")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "\x1b" not in process.stderr
