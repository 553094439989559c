"""A run over a file goes on with the same sequences only, wherever they are, and its reports need no file."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import forked
from tests.sequences import Data, make

DATA = make(count=24, classes=2, features=2, longest=4)
OVERRIDES = ["data=files", "data.batch_size=8", "trainer.max_epochs=2", "trainer.accelerator=cpu"]


def change_a_value(path: Path) -> None:
    sequences = [sequence.copy() for sequence in DATA.sequences]
    sequences[3][0, 0] += 1
    Data(sequences, DATA.labels).write(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file, a finished run over it, and a finished sweep of two jobs."""
    folder = tmp_path_factory.mktemp("made")
    DATA.write(folder / "a.csv")
    common = [*OVERRIDES, f"data.path={folder / 'a.csv'}"]
    sizes = "model.hidden_size=3,4"
    for words in (
        [*common, f"hydra.run.dir={folder / 'run'}"],
        ["-m", *common, sizes, f"hydra.sweep.dir={folder / 'sweep'}"],
    ):
        process = forked(folder, "train", *words)
        assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the run and the sweep; the file is where it was, and whole again afterwards."""
    for name in ("run", "sweep"):
        shutil.copytree(made / name, tmp_path / name)
    DATA.write(made / "a.csv")
    return tmp_path


def epochs(run_dir: Path) -> int:
    return len((run_dir / "metrics.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_another_content_is_refused(made: Path, copied: Path, kind: str) -> None:
    change_a_value(made / "a.csv")
    process = forked(copied, "resume", kind, "trainer.max_epochs=3")
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    assert f"{made / 'a.csv'}: holds other sequences than" in process.stderr
    runs = [copied / "run"] if kind == "run" else sorted((copied / "sweep").glob("0*"))
    assert [epochs(run) for run in runs] == [2] * len(runs)


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("form", [".csv", ".npz"])
def test_a_moved_file_is_named(made: Path, copied: Path, kind: str, form: str) -> None:
    """The same sequences may even be in another form."""
    (made / "a.csv").unlink()
    moved = DATA.write(copied / f"moved{form}")
    process = forked(copied, "resume", kind, "trainer.max_epochs=3", f"data.path={moved}")
    assert process.returncode == 0, process.stderr
    runs = [copied / "run"] if kind == "run" else sorted((copied / "sweep").glob("0*"))
    assert len(runs) == (1 if kind == "run" else 2)
    for run in runs:
        assert epochs(run) == 3
        assert json.loads((run / "summary.json").read_text())["config"]["data"]["path"] == str(moved)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_other_sequences_in_another_place_are_refused(made: Path, copied: Path, kind: str) -> None:
    change_a_value(copied / "other.csv")
    process = forked(copied, "resume", kind, "trainer.max_epochs=3", f"data.path={copied / 'other.csv'}")
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    assert f"{copied / 'other.csv'}: holds other sequences than" in process.stderr


@pytest.mark.parametrize("has_cache", [True, False])
def test_reports_need_no_file(made: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, has_cache: bool) -> None:
    (made / "a.csv").unlink()
    if not has_cache:
        monkeypatch.setenv("XDG_CACHE_HOME", str(copied / "empty"))
    report = forked(copied, "report", "sweep")
    assert report.returncode == 0, report.stderr
    trace = forked(copied, "trace", "run")
    if has_cache:
        assert trace.returncode == 0, trace.stderr
    else:
        # A trace shows a prediction step by step, and nobody has its sequence any more.
        assert trace.returncode == 2
        missing = f"data.path={made / 'a.csv'}: no such file; name where the sequences are: data.path=FILE"
        assert trace.stderr == f"grulab: {missing}\n"
