"""The parts of this machine that a run or a sweep needs, examined without importing torch."""

import fcntl
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grulab.data.workers import why_no_workers
from grulab.kernels import library
from grulab.system.cores import available_cores

_PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "tensorboard", "numpy", "pandas")
_SHARED_MEMORY = Path("/dev/shm")
_NVIDIA = Path("/proc/driver/nvidia/version")
_MEBIBYTE = 2**20
# The checkpoints of a default run take 40 KiB; those of the largest model of a run take much more.
_LITTLE_DISK = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        part: what was looked at.
        found: what is there.
        problem: what is wrong with it and the remedy; "" if nothing is.
        is_needed: whether a run with default settings needs it, so that a problem makes the exit code 1.
    """

    part: str
    found: str
    problem: str = ""
    is_needed: bool = False


def examine(folder: Path) -> Iterator[Finding]:
    """Yield what a run needs of this machine.

    Args:
        folder: where the outputs will be.
    """
    yield Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield from _versions()
    cores, own = available_cores(), os.cpu_count() or 1
    yield Finding("cores", f"{cores}" if cores == own else f"{cores} of {own}, by affinity or quota")
    if _NVIDIA.is_file():
        yield Finding("NVIDIA driver", _NVIDIA.read_text().splitlines()[0].removeprefix("NVRM version:").strip())
    yield _kernels()
    yield _shared_memory()
    yield from _disk(folder)


def _versions() -> Iterator[Finding]:
    found = {name: _version(name) for name in _PACKAGES}
    missing = [name for name, version in found.items() if not version]
    problems = [f"{', '.join(missing)} missing: pip install grulab"] if missing else []
    if found["lightning"] in ("2.6.2", "2.6.3"):
        problems.append(
            f"lightning {found['lightning']} was malware (pytorch-lightning#21691): remove it, change your secrets"
        )
    if (found["omegaconf"] or "").startswith("2.4") and (found["hydra-core"] or "").startswith("1.3"):
        problems.append("omegaconf 2.4 does not work with hydra-core 1.3: pip install 'omegaconf<2.4'")
    problem = "; ".join(problems)
    words = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    yield Finding("versions", f"Python {platform.python_version()}, {words}", problem, is_needed=True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernels() -> Finding:
    compiler = os.environ.get("CC", "cc")
    has_compiler = shutil.which(compiler.split()[0] if compiler.split() else compiler) is not None
    if library.is_built():
        return Finding("kernels", "built")
    why = f"{library.problem()}; nn.GRU runs in their place, which takes several times as long"
    remedy = library.REMEDY if has_compiler else f"there is no compiler {compiler}; install one, then {_BUILD}"
    return Finding("kernels", "not usable", f"{why}: {remedy}")


_BUILD = "python -m grulab.kernels.library"


def _shared_memory() -> Finding:
    part = str(_SHARED_MEMORY)
    if problem := why_no_workers(1):
        return Finding(part, "not usable", f"only data.num_workers above 0 needs it; {problem}")
    if not _SHARED_MEMORY.is_dir():
        return Finding(part, "none, and none is needed on this system")
    return Finding(part, f"{shutil.disk_usage(_SHARED_MEMORY).free / _MEBIBYTE:,.0f} MiB free")


def _disk(folder: Path) -> Iterator[Finding]:
    """Yield whether the folder can be written to, and whether two processes exclude each other there."""
    part = f"disk of {folder}"
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".grulab-doctor-") as file:
            little = free < _LITTLE_DISK
            problem = "under 1 GiB: a sweep may fill it; runs then stop and can be resumed" * little
            yield Finding(part, f"{free / 2**30:,.1f} GiB free", problem)
            yield _lock(file.fileno(), str(folder))
    except OSError as error:
        problem = f"cannot be written to ({error.strerror}): change to another folder"
        yield Finding(part, "not usable", problem, is_needed=True)


def _lock(descriptor: int, folder: str) -> Finding:
    part = f"locks in {folder}"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        problem = f"no file can be locked ({error.strerror}): keep outputs on another file system"
        return Finding(part, "not usable", problem, is_needed=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # A lock is of a process, so only another one can see whether it holds.
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(writer, b"taken")
        except OSError:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        is_taken = answer.read() == b"taken"
    os.waitpid(child, 0)
    if is_taken:
        problem = "two processes get the same lock: two runs in one folder would spoil each other"
        return Finding(part, "without effect", problem, is_needed=True)
    return Finding(part, "hold")
