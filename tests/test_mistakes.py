"""Mistakes on the command line: one line that names the key and the remedy, exit code 2, and nothing left behind."""

import time
from pathlib import Path

import pytest

from grulab.system.atomic import temporary_of
from tests.conftest import SMALL, forked, grulab


def refused(folder: Path, *arguments: str) -> str:
    """Return the one line with which a command line is refused, and check the rest of the promise."""
    folder.mkdir(exist_ok=True)
    process = forked(folder, *arguments)
    assert process.returncode == 2, (process.returncode, process.stdout, process.stderr)
    assert process.stderr.startswith("grulab: ")
    assert process.stderr.count("\n") == 1, process.stderr
    assert list(folder.iterdir()) == []
    return process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hydra=null", "hydra=null"),
        ("--config-name=", "--config-name=: is empty"),
        ("--config-dir=", "--config-dir=: is empty"),
        ("--resolve", "--resolve: has no effect on its own"),
        ("-sc x", "-sc x: write install=bash"),
        ("~hydra/job_logging", "~hydra/job_logging"),
        ("hydra.verbose=3", "hydra.verbose=3"),
        ("hydra.job.env_copy=[A_B_C]", "the variable A_B_C is not set"),
        ("hydra.mode=MULTIRUN", "-m makes a sweep"),
        ("hydra.searchpath=[x]", "hydra.searchpath=[x]"),
        ("+hydra.callbacks.x=3", "+hydra.callbacks.x=3"),
        ("hydra.launcher=null", "hydra.launcher=null"),
        ("hydra.run.dir=${nope}", "hydra.run.dir=${nope}"),
        ("experiment=../x", "experiment=../x: has a path"),
        ("-m seed=0,1 hydra.verbose=3", "hydra.verbose=3"),
        ("-m seed=0,1 hydra.launcher=3", "hydra.launcher=3"),
        ("-m seed=0,1 hydra.launcher._target_=os.system", "hydra.launcher._target_=os.system: is not installed"),
        ("-m seed=0,1 hydra.sweeper._target_=os.system", "hydra.sweeper._target_=os.system: is not installed"),
        ("-m seed=0,1 +hydra.sweeper.nope=1", "hydra.sweeper.nope=1: no such key"),
        ("-m seed=0,1 +hydra.launcher.nope=1", "hydra.launcher.nope=1: no such key"),
        ("-m seed=0,1 hydra.sweeper.zip=3", "hydra.sweeper.zip=3: must be a list of keys"),
        ("-m seed=0,1 hydra.sweeper.zip=true", "hydra.sweeper.zip=true: must be a list of keys"),
        ("-m seed=0,1 hydra.sweeper.zip=[1]", "hydra.sweeper.zip=[1]: must be a list of keys"),
        ("-m seed=0,1 hydra.sweeper.zip=[[]]", "hydra.sweeper.zip=[[]]: must be a list of keys"),
        ("-m seed=0,1 hydra.sweeper.params=3", "hydra.sweeper.params=3: must be a group of keys"),
        ("-m seed=0,1 hydra.sweeper.params=[1]", "hydra.sweeper.params=[1]: must be a group of keys"),
        ("-m hydra.job.chdir=true,false", "hydra.job.chdir=true,false: the jobs of a sweep share"),
        ("-m seed=0,1 hydra.sweep.dir=\\${x}", "rename the folder"),
        ("-m seed=range(1e9)", "makes 1,000,000,000 jobs in all, and hydra.sweeper.max_jobs=10000"),
        ("-m seed=range(1e9) --plan", "hydra.sweeper.max_jobs=10000"),
        ("-m seed=range(0,inf)", "has no last value"),
        ("-m seed=range(0,9,0)", "has no last value"),
        ("-m seed=interval(0,1)", "is a range without steps"),
        ("-m data=glob(*)", "is a pattern"),
    ],
)
def test_a_mistake_in_the_keys_of_hydra(tmp_path: Path, arguments: str, message: str) -> None:
    assert message in refused(tmp_path / "empty", "train", *arguments.split(" "))


@pytest.mark.parametrize("word", ["seed=1\n2", "data.task=a\x1b[31m", "name=a\udcff", "name=a\u2028b"])
@pytest.mark.parametrize("verb", ["train", "resume", "report", "trace"])
def test_every_line_of_a_refusal_is_one_line(tmp_path: Path, verb: str, word: str) -> None:
    message = refused(tmp_path / "empty", verb, word)
    assert word.encode("unicode_escape").decode() in message or "\\x1b" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1,2,3,4,5,6,7,8,9]\n" + "".join(
            f"{new}: &{new} [{','.join(9 * [f'*{old}'])}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "its aliases stand for more than 100,000 values"),
        ("# @package _global_\ndefaults: [odd]\n", "experiment=odd: includes itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
        ("name: \xff", "is not UTF-8"),
        ("a: [", "odd.yaml"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_of_ones_own(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine" / "experiment" / "odd.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    assert message in refused(tmp_path / "empty", "train", "--config-dir", str(tmp_path / "mine"), "experiment=odd")


def test_a_mistake_of_trace_is_found_before_torch_is_imported(tmp_path: Path) -> None:
    assert forked(tmp_path, "train", *SMALL, "hydra.run.dir=run").returncode == 0
    copy = tmp_path / "copy.ckpt"
    sealed = bytearray((tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes())
    sealed[len(sealed) // 2] ^= 1
    copy.write_bytes(sealed)
    program = "import sys; from grulab.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for arguments, message in (
        (["missing"], "missing: no such file or folder"),
        (["."], "holds no checkpoints/best.ckpt"),
        (["run", "--sequence", "40"], "--sequence 40: choose from 0 to 39"),
        (["run", "--sequence", "x"], "invalid int value"),
        (["copy.ckpt"], "copy.ckpt: is damaged"),
        ([], "are required: DIR_OR_CKPT"),
    ):
        began = time.monotonic()
        process = grulab(tmp_path, "trace", *arguments, program=program)
        # The bar is 1.5 s on an idle machine; tests run beside each other.
        assert time.monotonic() - began < 15
        assert message in process.stderr
        assert process.stdout == "2 False\n"


def test_a_folder_is_claimed_before_hydra_writes_to_it(tmp_path: Path) -> None:
    """The loser of a race for one folder leaves the winner's .hydra/ alone."""
    program = """
import sys
from grulab.commands import hydra_app, train
from grulab.run_folder.lock import lock

def call_hydra(args, words):
    from pathlib import Path
    from grulab.config_error import ConfigError
    from tests.conftest import grulab
    process = grulab(Path.cwd(), "train", "seed=1", "hydra.run.dir=run")
    print(process.returncode, process.stderr, sorted(path.name for path in Path("run").iterdir()))

train.call_hydra = call_hydra
from grulab.cli import main
sys.path.insert(0, sys.argv.pop(1))
sys.exit(main(sys.argv[1:]))
"""
    root = str(Path(__file__).parents[1])
    process = grulab(tmp_path, root, "train", "seed=0", "hydra.run.dir=run", program=program)
    assert process.stdout.startswith("2 grulab: run: is in use by process"), (process.stdout, process.stderr)
    assert process.stdout.endswith("['.owner']\n")


def test_a_folder_named_like_a_flag(tmp_path: Path) -> None:
    process = forked(tmp_path, "train", *SMALL, "hydra.run.dir='-y'")
    assert process.returncode == 0, process.stderr
    assert "grulab trace ./-y" in process.stdout


def test_a_folder_that_ends_with_a_backslash(tmp_path: Path) -> None:
    process = forked(tmp_path, "train", "-m", *SMALL, "seed=0,1", r"hydra.sweep.dir='a\\'")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "a\\" / "leaderboard.csv").is_file()
    assert forked(tmp_path, "resume", "a\\", "trainer.max_epochs=3").returncode == 0


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); from grulab.cli import main; sys.exit(main(['train']))"
    process = grulab(gone, program=program)
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "does not exist any more" in process.stderr


def test_what_was_killed_before_it_began_is_begun_again(tmp_path: Path) -> None:
    """Its folder holds a lock file, and perhaps half of Hydra's files; a folder of somebody else is left alone."""
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("")
    refused_before = forked(tmp_path, "train", *SMALL, "hydra.run.dir=run")
    assert "run: is not empty" in refused_before.stderr
    (tmp_path / "run" / ".owner").write_text("")
    assert "config.yaml: cannot be read" in forked(tmp_path, "resume", "run").stderr
    process = forked(tmp_path, "train", *SMALL, "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr
    # A sweep that was killed while it wrote its list of jobs.
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".owner").write_text("")
    temporary = temporary_of(tmp_path / "sweep" / "sweep.json")
    temporary.write_text("{")
    process = forked(tmp_path, "train", "-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert not temporary.exists()


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    for arguments, message in (
        (["train", "-m", "seed=0,1", "hydra.sweep.dir=notes.md"], "hydra.sweep.dir=notes.md"),
        (["resume", "notes.md"], "notes.md: is a file, and no folder"),
        (["report", "notes.md"], "notes.md: is a file, and no folder"),
    ):
        process = forked(tmp_path, *arguments)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1
        assert "remove" not in process.stderr
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_the_folder_of_a_sweep_that_has_lost_its_file(tmp_path: Path) -> None:
    assert forked(tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep").returncode == 0
    (tmp_path / "sweep" / "sweep.json").unlink()
    process = forked(tmp_path, "resume", "sweep")
    assert process.returncode == 2
    assert "give the sweep's command once more with hydra.sweep.dir=sweep, and it goes on" in process.stderr
