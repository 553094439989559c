"""Worker processes of the DataLoaders: what they need of the machine, and one line where it is missing."""

import errno
import os
import shutil
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from grulab import compose, train
from grulab.config_error import ConfigError
from grulab.data.batch import PaddedBatch
from grulab.data.workers import why_no_workers
from tests.conftest import SMALL, grulab

WORKERS = [*SMALL, "data.num_workers=2"]

# The grulab program on a machine that gives a number of semaphores, and then an error.
FEW_SEMAPHORES = """
import itertools, os, sys
from grulab.cli import main
from grulab.data import workers

number = itertools.count()
original = workers._new_semaphore

def few():
    if next(number) >= %d:
        raise OSError(%d, os.strerror(%d))
    return original()

workers._new_semaphore = few
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "is full (No space left on device)"),
        (errno.EROFS, "cannot be written to (Read-only file system)"),
        (errno.ENOENT, "is missing (No such file or directory)"),
    ],
)
def test_workers_need_a_little_shared_memory(tmp_path: Path, number: int, cause: str) -> None:
    line = (
        f"grulab: data.num_workers=2: worker processes need a little shared memory, and /dev/shm {cause}; "
        "mend that, or set data.num_workers=0\n"
    )
    program = FEW_SEMAPHORES % (9, number, number)
    for arguments in (["hydra.run.dir=run"], ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]):
        process = grulab(tmp_path, "train", *WORKERS, *arguments, program=program)
        assert (process.returncode, process.stdout, process.stderr) == (2, "", line)
        assert list(tmp_path.iterdir()) == []


def test_a_run_from_python_is_refused_before_it_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("grulab.data.workers._new_semaphore", missing)
    assert why_no_workers(0) is None
    with pytest.raises(ConfigError, match=r"data.num_workers=2: .* /dev/shm is full"):
        train(compose(WORKERS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def run_with_room_for(starts: int, folder: Path) -> str:
    """Train with room for some checks of the semaphores; return what the run says when there is none left."""
    program = FEW_SEMAPHORES % (starts * 42, errno.ENOSPC, errno.ENOSPC)
    process = grulab(folder, "train", *WORKERS, "hydra.run.dir=run", program=program)
    assert process.returncode == 1
    assert "grulab: WorkersNotStartedError: data.num_workers=2: worker processes need" in process.stderr
    return process.stderr


def test_shared_memory_that_runs_full_later_is_one_line(tmp_path: Path) -> None:
    # Enough for the check by the command, and for the two loaders of the training; not for the test.
    assert "Exception ignored" not in run_with_room_for(3, tmp_path)
    again = grulab(tmp_path, "resume", "run", "data.num_workers=0")
    assert again.returncode == 0, again.stderr


def test_half_a_start_of_workers_is_one_line(tmp_path: Path) -> None:
    assert "combined_loader" not in run_with_room_for(2, tmp_path)


def test_a_batch_needs_no_shared_memory_to_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", full)
    batch = PaddedBatch(torch.randn(3, 4, 5), torch.tensor([4, 2, 1]), torch.tensor([0, 1, 2]))
    arrived = ForkingPickler.loads(ForkingPickler.dumps(batch))
    assert isinstance(arrived, PaddedBatch)
    for before, after in zip(batch, arrived, strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)


def with_shared_memory(options: str, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with a /dev/shm of its own."""
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "cause"),
    [("size=16k", 2, "is full"), ("ro", 2, "cannot be written to"), ("size=400k", 0, "")],
)
def test_on_such_a_machine(tmp_path: Path, options: str, code: int, cause: str) -> None:
    """A /dev/shm of 400 KiB is enough, for the batches do not need it."""
    if shutil.which("unshare") is None or with_shared_memory(options, ["true"], tmp_path).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    program = str(Path(sys.executable).with_name("grulab"))
    process = with_shared_memory(
        options, [program, "train", "data.train_size=2000", "trainer.max_epochs=1", *WORKERS[1:3], WORKERS[-1],
                  "hydra.run.dir=run"], tmp_path,
    )  # fmt: skip
    assert process.returncode == code, process.stderr
    assert len(process.stderr.splitlines()) == (code != 0)
    assert cause in process.stderr
    assert (tmp_path / "run").exists() == (code == 0)
