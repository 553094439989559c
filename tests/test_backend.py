"""model.backend and the compiled kernel library: built, missing, stale or broken."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from grulab.cli import main
from grulab.config.compose import compose
from grulab.kernels import library
from grulab.kernels.backend import backend_notes, layout_on
from grulab.models.gru import GRUClassifier
from grulab.run_folder.summary import read_summary
from grulab.training.device import device_notes
from grulab.training.module import SequenceClassifier
from tests.conftest import SMALL

DEVICES = ["cpu", "cuda", "mps", "xla"]

pytestmark = pytest.mark.skipif(not library.is_built(), reason="there was no C compiler when grulab was installed")


def test_the_backend_says_what_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    for backend in ("auto", "fused", "torch"):
        folder = tmp_path / backend
        assert main(["train", *SMALL, f"model.backend={backend}", f"hydra.run.dir={folder}"]) == 0
        summary = read_summary(folder)
        assert summary["backend"] == ("torch" if backend == "torch" else "fused")
        losses[backend] = summary["metrics"]["test/loss"]
    assert losses["auto"] == losses["fused"]
    assert losses["fused"] == pytest.approx(losses["torch"], rel=1e-4)
    assert type(GRUClassifier(4, 6, 1, 3, backend="torch").gru) is nn.GRU
    with pytest.raises(ValueError, match="backend=cuda: choose from auto, fused, torch"):
        GRUClassifier(4, 6, 1, 3, backend="cuda")


def test_without_the_kernels_nn_gru_runs_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "problem", lambda: "are not built")
    assert main(["train", *SMALL, "model.backend=fused", f"hydra.run.dir={tmp_path / 'fused'}"]) == 2
    assert capsys.readouterr().err.startswith("grulab: model.backend=fused: the fused kernels are not built")
    assert not (tmp_path / "fused").exists()
    assert main(["train", *SMALL, f"hydra.run.dir={tmp_path / 'auto'}"]) == 0
    assert "model.backend=auto: the fused kernels are not built" in (tmp_path / "auto" / "run.log").read_text()
    assert read_summary(tmp_path / "auto")["backend"] == "torch"


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_library_that_is_none_of_ours_is_not_used(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "libgru.so"
    if content is None:
        # A valid shared library without the kernels' functions.
        source = tmp_path / "other.c"
        source.write_text("int other(void) { return 1; }")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(library, "PATH", path)
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    assert library.problem.__wrapped__().startswith("cannot be loaded (")


def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libgru.so"
    monkeypatch.setattr(library, "FLAGS", ("-O0", "-Wno-psabi"))
    library.build(path)
    monkeypatch.undo()
    monkeypatch.setattr(library, "PATH", path)
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    assert library.problem.__wrapped__() == "are built of other sources"


def test_a_resume_says_that_something_else_computes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", *SMALL, "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]) == 0
    assert main(["resume", str(folder), "trainer.max_epochs=9"]) == 0
    assert "resumed with" not in capsys.readouterr().out
    assert main(["resume", str(folder), "trainer.max_epochs=10", "model.backend=torch"]) == 0
    assert (
        "resumed with nn.GRU over packed sequences after the fused kernels: the last bits differ"
        in capsys.readouterr().out
    )


def test_padded_sequences_are_nn_gru_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = []
    for sequences in ("packed", "padded"):
        folder = tmp_path / sequences
        overrides = ["trainer.accelerator=cpu", f"model.sequences={sequences}", f"hydra.run.dir={folder}"]
        assert main(["train", *SMALL, *overrides]) == 0
        losses.append(read_summary(folder)["metrics"]["test/loss"])
    assert read_summary(folder)["backend"] == "padded"
    assert "model.sequences=padded: nn.GRU computes every step" in capsys.readouterr().out
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert main(["resume", str(folder), "trainer.max_epochs=9", "model.sequences=auto"]) == 0
    assert "; model.sequences=padded goes on as before" in capsys.readouterr().out
    assert main(["train", *SMALL, "model.sequences=padded", "model.backend=fused", "hydra.run.dir=other"]) == 2
    assert capsys.readouterr().err.startswith("grulab: model.sequences=padded: the kernels of model.backend=fused")
    assert not Path("other").exists()


def test_auto_chooses_how_sequences_are_computed() -> None:
    chosen = {(device, mixed): layout_on(device, "auto", mixed) for device in DEVICES for mixed in (False, True)}
    packed = {("cpu", False), ("cpu", True), ("cuda", False)}
    assert {case for case, layout in chosen.items() if layout == "packed"} == packed
    assert all(layout_on(device, layout, True) == layout for device in DEVICES for layout in ("packed", "padded"))


@pytest.mark.parametrize(
    ("overrides", "accelerator", "expected"),
    [
        ([], "cpu", ""),
        (["trainer.tf32=true"], "cpu", "trainer.tf32=true has no effect with the cpu device"),
        (["trainer.tf32=true"], "cuda", ""),
        (
            ["trainer.tf32=true", "trainer.precision=16-mixed"],
            "cuda",
            "has no effect with trainer.precision=16-mixed",
        ),
        (["trainer.precision=bf16-mixed"], "cpu", "takes about twice the time"),
        (["trainer.precision=bf16-mixed"], "cuda", "an old card has no such floats and emulates them"),
    ],
)
def test_notes_on_a_device(
    overrides: list[str], accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old card")
    notes = list(device_notes(compose(overrides), accelerator, "fast"))
    assert len(notes) == bool(expected)
    assert expected in "".join(notes)


def test_a_backend_without_effect_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["trainer.accelerator=cpu", "model.backend=fused", "trainer.precision=64-true"]
    assert main(["train", *SMALL, *overrides, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    line = "model.backend=fused has no effect with trainer.precision=64-true: nn.GRU runs"
    assert line in capsys.readouterr().out
    # model.backend=fused binds the run, not its checkpoint, which must load without the kernels.
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert SequenceClassifier.load_from_checkpoint(checkpoint).hparams["backend"] == "auto"


def test_long_sequences_without_the_kernels_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["data.max_length=1001"])
    assert list(backend_notes(config, "cpu", "fused", None)) == []
    monkeypatch.setattr(library, "is_built", lambda: False)
    notes = list(backend_notes(config, "cpu", "torch", None))
    assert any("sequences have up to 1,001 steps" in note for note in notes)
    assert not any("up to" in note for note in backend_notes(compose(["data.max_length=1000"]), "cpu", "torch", None))


def test_no_compiler_is_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(OSError, match="no-such-compiler"):
        library.build(tmp_path / "libgru.so")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(subprocess.CalledProcessError):
        library.build(tmp_path / "libgru.so")
    assert not list(tmp_path.iterdir())
