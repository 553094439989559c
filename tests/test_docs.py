"""The examples in docs/ run as they stand."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import forked, grulab
from tests.sequences import make

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module,), (points,), (yaml,) = (blocks("tasks.md", language) for language in ("python", "toml", "yaml"))
    package = tmp_path / "site" / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parity.py").write_text(module)
    metadata = tmp_path / "site" / "mypackage-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    ((name, value),) = tomllib.loads(points)["project"]["entry-points"]["grulab.tasks"].items()
    (metadata / "entry_points.txt").write_text(f"[grulab.tasks]\n{name} = {value}\n")
    (tmp_path / "myconf" / "data").mkdir(parents=True)
    (tmp_path / "myconf" / "data" / "parity.yaml").write_text(yaml)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    small = ["data.train_size=65", "data.val_size=33", "data.test_size=40", "trainer.max_epochs=1"]
    process = grulab(tmp_path, "train", "--config-dir", "myconf", "data=parity", *small, "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr
    assert "(chance 0.500, ceiling 1.000)" in process.stdout


def test_the_examples_in_python(tmp_path: Path) -> None:
    program = "import warnings\nwarnings.simplefilter('ignore')\n" + "\n".join(
        block for block in blocks("python.md", "python") if "<date_time>" not in block
    )
    program = program.replace("max_epochs=5", "max_epochs=1").replace("max_epochs=20", "max_epochs=6")
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "outputs" / "mine" / "summary.json").is_file()


def test_the_examples_of_ones_own_sequences(tmp_path: Path) -> None:
    table = make().write(tmp_path / "gestures.csv")
    trained = ["data=files", f"data.path={table}", "trainer.max_epochs=1", "hydra.run.dir=run"]
    assert forked(tmp_path, "train", *trained).returncode == 0
    assert forked(tmp_path, "export", "run", "model.onnx").returncode == 0
    for block in blocks("sequences.md", "python"):
        process = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "outputs" / "mine" / "predictions.csv").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links or page.name in ("python.md", "folders.md", "tensorboard.md")
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
