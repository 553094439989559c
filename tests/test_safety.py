"""Saved state survives damage and full disks, hostile files are refused, and a run's folder has one owner."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from experiments.exact_resume.harness import SMALL, differences, run_until_done
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from grulab import compose, resume, train
from grulab.config_error import ConfigError
from grulab.run_folder import checkpoint_folder
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import UnsafeCheckpointError, add_checksum, load
from grulab.run_folder.full_disk import DiskFullError
from grulab.run_folder.lock import is_locked, lock
from grulab.training.callbacks.epoch_log import EpochLog
from tests.conftest import Start, grulab


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(
    start: Start, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = stopped / "checkpoints" / "last.ckpt"
    spoilt = last.read_bytes()[: last.stat().st_size // 2]
    last.write_bytes(spoilt)
    resume(stopped)
    assert "last.ckpt: is damaged" in caplog.text
    assert (last.with_name("last-damaged.ckpt")).read_bytes() == spoilt
    assert differences(start("alone"), stopped) == []


def test_a_flipped_byte_is_found_wherever_it_is(stopped: Path, tmp_path: Path) -> None:
    content = (stopped / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "flipped.ckpt"
    # Random positions, and the directory at the end of the archive, which the zip's own checksums do not cover.
    start = content.rindex(b"archive/data/0") - 46
    positions = random.Random(0).sample(range(len(content)), 150) + list(range(start, start + 100))
    for position in [*positions, len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises((DamagedCheckpointError, UnsafeCheckpointError)):
            load(path)


def test_a_flipped_bit_is_damage_and_no_attack(start: Start, stopped: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit can change the name of a harmless class into an unknown one; the previous checkpoint is used."""
    last = stopped / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[content.index(b"ccollections") + 1] ^= 1  # bollections
    last.write_bytes(content)
    resume(stopped)
    assert "last.ckpt: is damaged: its checksum" in caplog.text
    assert differences(start("alone"), stopped) == []


def test_with_no_whole_checkpoint_nothing_is_touched(stopped: Path) -> None:
    folder = stopped / "checkpoints"
    for name in ("last.ckpt", "last-previous.ckpt", "best.ckpt"):
        (folder / name).write_bytes(b"PK not a zip")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rows = (stopped / "metrics.csv").read_bytes()
    with pytest.raises(
        DamagedCheckpointError, match=r"last.ckpt: is damaged.*best.ckpt: is damaged.*good copy"
    ) as caught:
        resume(stopped)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (stopped / "metrics.csv").read_bytes() == rows


def test_missing_checkpoints_do_not_begin_the_run_anew(start: Start) -> None:
    run = start("run")
    shutil.rmtree(run / "checkpoints")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".owner"}
    with pytest.raises(
        ConfigError, match=r"holds no checkpoint, but metrics.csv has 6 epochs; put the checkpoints back"
    ):
        resume(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".owner"} == before


@pytest.mark.parametrize("missing", ["last.ckpt", "last-previous.ckpt", "best.ckpt"])
def test_any_one_checkpoint_can_be_lost(start: Start, stopped: Path, missing: str) -> None:
    folder = stopped / "checkpoints"
    epochs = {
        name: load(folder / name)["grulab"]["epochs"] for name in ("last.ckpt", "last-previous.ckpt", "best.ckpt")
    }
    lost = epochs[missing]
    (folder / missing).unlink()
    if missing == "best.ckpt" and lost not in (epochs["last.ckpt"], epochs["last-previous.ckpt"]):
        with pytest.raises(DamagedCheckpointError, match=rf"best.ckpt: is missing.*of epoch {lost}"):
            resume(stopped)
    else:
        resume(stopped)
        assert differences(start("alone"), stopped) == []


def test_a_best_of_another_run_is_not_tested(start: Start, stopped: Path) -> None:
    other = start("other", "seed=9", "trainer.max_epochs=2")
    for path in (stopped / "checkpoints").glob("*.ckpt"):
        if load(path)["grulab"]["epochs"] != 4:
            path.unlink()
    shutil.copy(other / "checkpoints" / "best.ckpt", stopped / "checkpoints" / "best.ckpt")
    if load(stopped / "checkpoints" / "last.ckpt")["callbacks"]["Checkpointer"]["best_epoch"] == 4:
        resume(stopped)
        assert differences(start("alone"), stopped) == []
    else:
        with pytest.raises(DamagedCheckpointError, match=r"best.ckpt: is missing, or of another run or epoch"):
            resume(stopped)


def test_a_checkpoint_of_another_run_does_not_take_the_place_of_last(start: Start, stopped: Path) -> None:
    other = start("other", "seed=9")
    folder = stopped / "checkpoints"
    before = (folder / "last.ckpt").read_bytes()
    shutil.copy(other / "checkpoints" / "last.ckpt", folder / "best.ckpt")
    assert load(folder / "best.ckpt")["grulab"]["epochs"] == 6
    found = checkpoint_folder.newest_good(folder)
    assert found is not None
    assert found[1]["grulab"]["epochs"] == 4
    assert (folder / "last.ckpt").read_bytes() == before


def test_weights_and_the_epoch_they_are_said_to_be_of_agree(tmp_path: Path, accelerator: str) -> None:
    """A crash can leave best.ckpt newer than last.ckpt; a max_epochs below the epoch of best.ckpt is then refused."""
    overrides = [*SMALL, accelerator, "checkpoint.every_n_epochs=3", "optimizer.lr=0.05"]
    run_until_done(overrides, tmp_path / "alone", [])
    folder = tmp_path / "killed"
    pid = os.fork()
    if pid == 0:
        original = EpochLog.on_train_epoch_end

        def kill(self: EpochLog, trainer: L.Trainer, module: L.LightningModule) -> None:
            original(self, trainer, module)
            if trainer.current_epoch + 1 == 6:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            EpochLog.on_train_epoch_end = kill  # type: ignore[method-assign]
            train(compose(overrides), folder)
        finally:
            # The child never goes on as a second pytest.
            os._exit(1)
    os.waitpid(pid, 0)
    best, last = (load(folder / "checkpoints" / f"{name}.ckpt")["grulab"]["epochs"] for name in ("best", "last"))
    assert last == 3
    if best > last:
        with pytest.raises(ConfigError, match=f"{best} epochs are done already"):
            resume(folder, ["trainer.max_epochs=3"])
    resume(folder)
    assert differences(tmp_path / "alone", folder) == []


def spoil_table(run: Path) -> None:
    (run / "metrics.csv").write_text("epo")


def lose_table(run: Path) -> None:
    (run / "metrics.csv").unlink()


def lose_curves(run: Path) -> None:
    shutil.rmtree(run / "tensorboard")


def cut_curves(run: Path) -> None:
    (file,) = (run / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:1200])


def flip_curves(run: Path) -> None:
    (file,) = (run / "tensorboard").iterdir()
    content = bytearray(file.read_bytes())
    content[1500] ^= 0xFF
    file.write_bytes(content)


def cut_summary(run: Path) -> None:
    path = run / "summary.json"
    path.write_text(path.read_text()[:300])


def lose_summary(run: Path) -> None:
    (run / "summary.json").unlink()


@pytest.mark.parametrize(
    "harm", [spoil_table, lose_table, lose_curves, cut_curves, flip_curves, cut_summary, lose_summary]
)
def test_a_checkpoint_makes_the_rest_of_the_folder_again(
    start: Start, stopped: Path, harm: Callable[[Path], None]
) -> None:
    harm(stopped)
    resume(stopped)
    assert differences(start("alone"), stopped) == []


def test_what_a_user_put_beside_the_curves_stays(stopped: Path) -> None:
    mine = stopped / "tensorboard" / "events.out.tfevents.1.mine"
    mine.write_bytes(b"not an event file")
    with SummaryWriter(stopped / "tensorboard") as writer:
        writer.add_scalar("mine/note", 1.5, 7)
    resume(stopped)
    assert mine.read_bytes() == b"not an event file"
    mine.unlink()
    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("mine/note")] == [(7, 1.5)]


def test_a_second_damage_does_not_overwrite_the_first(stopped: Path) -> None:
    folder = stopped / "checkpoints"
    for content in (b"first", b"second"):
        (folder / "last.ckpt").write_bytes(content)
        checkpoint_folder.newest_good(folder)
    assert (folder / "last-damaged.ckpt").read_bytes() == b"first"
    assert (folder / "last-damaged1.ckpt").read_bytes() == b"second"


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_code_in_a_checkpoint_is_refused_by_name(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    last = stopped / "checkpoints" / "last.ckpt"
    content = load(last) | {"state_dict": Payload()}
    torch.save(content, last, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UnsafeCheckpointError, match=r"last.ckpt: refused: it asks for posix.system"):
        resume(stopped)
    # Refused with a valid checksum too, because an attacker can compute it.
    if form == "zip":
        last.write_bytes(add_checksum(last.read_bytes()))
        with pytest.raises(UnsafeCheckpointError):
            resume(stopped)
    assert not (tmp_path / "executed").exists()


def test_a_folder_has_one_owner(stopped: Path) -> None:
    """A second process gets an error that names the lock's owner; when the owner dies, the lock is free."""
    script = f"import time; from pathlib import Path; from grulab.run_folder.lock import is_locked, lock\nwith lock(Path({str(stopped)!r})): print('mine', flush=True); time.sleep(60)"  # noqa: E501
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError, match=rf"is in use by process {holder.pid} on .* since \d{{4}}-") as caught:
            resume(stopped)
        assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match="is in use"):
            train(compose(SMALL), stopped)
        holder.kill()
    assert resume(stopped)["status"] == "done"


def test_a_folder_has_one_owner_among_threads_too(stopped: Path) -> None:
    with lock(stopped), pytest.raises(ConfigError, match="is in use by this process"), lock(stopped):
        pass
    with lock(stopped):
        pass


def test_the_owners_workers_do_not_own(tmp_path: Path) -> None:
    """A loader worker that outlives a killed run by some seconds does not hold the lock on its folder."""
    with lock(tmp_path):
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
    try:
        reader = subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path; from grulab.run_folder.lock import is_locked, lock\nwith lock(Path({str(tmp_path)!r})): print('free')"],  # noqa: E501
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert reader.stdout == "free\n"
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 300 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_room_is_all_it_needs(start: Start, tiny_disk: Path, accelerator: str) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(250 * 1024))
    with pytest.raises(DiskFullError, match=r"the disk is full; make room, then go on with grulab resume"):
        train(compose([*SMALL, accelerator]), tiny_disk / "run")
    ballast.unlink()
    resume(tiny_disk / "run")
    assert differences(start("alone"), tiny_disk / "run") == []


def test_a_full_disk_in_the_middle_loses_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = L.Trainer.save_checkpoint, []

    def full(self: L.Trainer, path: Path) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "save_checkpoint", full)
        with pytest.raises(DiskFullError):
            start("full")
    resume(tmp_path / "full")
    assert differences(start("alone"), tmp_path / "full") == []


def test_a_folder_that_cannot_be_written_is_named(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path).name == ".owner":
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments, **named)

    monkeypatch.setattr("grulab.run_folder.lock.os.open", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written to \(Permission denied\)"):
        resume(stopped)


def test_newest_good_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert checkpoint_folder.newest_good(tmp_path) is None


def test_a_flipped_bit_in_a_finished_run_is_mended(start: Start) -> None:
    """Results are read by people and reports: a resume makes both files again from the checkpoints."""
    run = start("run")
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "summary.json")}
    metrics = json.loads(before["summary.json"])["metrics"]
    generator = random.Random(0)
    for name in before:
        for _ in range(4):
            changed = bytearray(before[name])
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(7)
            (run / name).write_bytes(changed)
            resume(run)
            assert (run / "metrics.csv").read_bytes() == before["metrics.csv"]
            assert json.loads((run / "summary.json").read_text())["metrics"] == metrics
            (run / name).write_bytes(before[name])


def test_processes_that_a_library_starts_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("joblib.py", "importlib.py", "torch.py"):
        (tmp_path / name).write_text("open('executed', 'w')")
    process = grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra/launcher=joblib", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "executed").exists()


def test_settings_of_matplotlib_in_the_current_folder_are_not_read(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    # A reader of it would wait for ever.
    os.mkfifo(tmp_path / "matplotlibrc")
    for command in (["report", "sweep"], ["train", *SMALL, "hydra.run.dir=run"], ["trace", "run"]):
        process = grulab(tmp_path, *command)
        assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with lock(tmp_path):
        assert "its file system has no locks" in caplog.text
        # Other threads of this process are kept out all the same.
        with pytest.raises(ConfigError, match="in use by this process"), lock(tmp_path):
            pass
    assert not is_locked(tmp_path)
