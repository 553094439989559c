"""Run commands of grulab in forked processes with limits, and tell what no command may ever do."""

import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

from grulab.cli import main

WORKERS = 2
MEBIBYTE = 2**20
# No command may take more than this.
MOST_MEMORY = 2048
# What protects the machine meanwhile: a command that reaches for more gets a MemoryError, or EFBIG for a file.
_ADDRESS_SPACE = 5 * 2**30
_LARGEST_FILE = 256 * MEBIBYTE
_EXIT_CODES = (0, 1, 2, 130, 143)
# Errors that grulab raises on purpose; another name at the beginning of a line is an error that nobody foresaw.
_OWN_ERRORS = {
    "DamagedCheckpointError",
    "UnsafeCheckpointError",
    "NonFiniteLossError",
    "DiskFullError",
    "SweepFailedError",
}
_PREFIX = "grulab: "


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: its exit code, minus the number of the signal that ended it, or None if it was killed at the time limit.
        seconds: its wall time.
        peak: its largest resident memory, in MiB.
        stdout: what it printed.
        stderr: what it printed there.
        imported_torch: whether it had imported torch at its end; true in a process forked from one that has torch.
    """

    code: int | None
    seconds: float
    peak: int
    stdout: str
    stderr: str
    imported_torch: bool

    @property
    def lines(self) -> list[str]:
        """The lines of stderr."""
        return self.stderr.rstrip("\n").split("\n") if self.stderr else []

    @property
    def mistakes(self) -> list[str]:
        """The lines of stderr without those that list the jobs which share a mistake: they are indented."""
        return [line for line in self.lines if not line.startswith(_PREFIX + "  ")]


@dataclass(frozen=True)
class Violation:
    """Something that must not happen: its kind in a few words, and the evidence."""

    kind: str
    evidence: str


@dataclass
class Result:
    """A case that was run: its outcome, and what was wrong with it."""

    outcome: Outcome
    violations: list[Violation] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One attack.

    Attributes:
        part: the part of the study.
        number: its number in the part; the seed, the part and the number determine the case.
        what: what is done, in words.
        run: carries it out in an empty folder.
    """

    part: str
    number: int
    what: str
    run: Callable[[Path], Result]


Prepare = Callable[[Path], None]
# Gets the folder of the case and the outcome; yields what was wrong.
Judge = Callable[[Path, Outcome], Iterator[Violation]]


def attack(
    arguments: Sequence[str], prepare: Prepare, judge: Judge, folder: Path, *, limit: float, clean: bool = False
) -> Result:
    """Carry out a case that is one command.

    Args:
        arguments: of ``grulab``.
        prepare: puts what the command meets into its working directory.
        judge: judges what this case is about; what no command may do is judged anyway.
        folder: the folder of the case; the command runs in ``cwd`` in it.
        limit: seconds after which the command counts as hanging.
        clean: whether a refused command must leave its working directory as it was.
    """
    cwd = folder / "cwd"
    cwd.mkdir(parents=True)
    prepare(cwd)
    before = names(cwd)
    outcome = grulab(arguments, folder, limit)
    found = [*never(outcome), *judge(folder, outcome)]
    if clean and outcome.code == 2 and (left := sorted(names(cwd) - before)):
        found.append(Violation("left behind", ", ".join(left[:3])))
    return Result(outcome, found)


def never(outcome: Outcome) -> Iterator[Violation]:
    """Yield what no command may do, whatever it is given."""
    last = outcome.lines[-1] if outcome.lines else ""
    if outcome.code is None:
        yield Violation("hang", f"killed after {outcome.seconds:.0f} s")
    elif outcome.code < 0:
        yield Violation("death by a signal", signal.Signals(-outcome.code).name)
    elif outcome.code not in _EXIT_CODES:
        yield Violation("exit code", str(outcome.code))
    if outcome.peak > MOST_MEMORY:
        yield Violation("memory", f"{outcome.peak} MiB")
    if "Traceback (most recent" in outcome.stdout + outcome.stderr:
        yield Violation("traceback", last)
    elif outcome.code in (1, 2):
        if not outcome.lines:
            yield Violation("no message", f"exit code {outcome.code}")
        for line in outcome.lines:
            name = re.match(r"grulab: (\w+Error|(?:[A-Z][a-z0-9]+){2,}):", line)
            if name and name[1] not in _OWN_ERRORS:
                yield Violation("raw error", line)
            elif not line.startswith(_PREFIX):
                yield Violation("line without grulab:", line)


def grulab(
    arguments: Sequence[str], folder: Path, limit: float, meddle: Callable[[int], None] = lambda pid: None
) -> Outcome:
    """Run a command in a fork of this process, in ``cwd`` of a folder.

    Args:
        arguments: of ``grulab``.
        folder: the output goes into files in it.
        limit: seconds after which the command is killed.
        meddle: is called with the command's process id while it runs.
    """
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(arguments, folder)
    meddle(pid)
    code: int | None = None
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > began + limit:
            _kill(pid)
            _, _, usage = os.wait4(pid, 0)
            break
        time.sleep(0.002)
    seconds = time.monotonic() - began
    if ended:
        code = os.waitstatus_to_exitcode(status)
        _kill(pid)
    out, err = (
        (folder / name).read_bytes()[:MEBIBYTE].decode("utf-8", "backslashreplace") for name in ("out", "err")
    )
    return Outcome(code, seconds, usage.ru_maxrss // 1024, out, err, (folder / "torch").exists())


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _become(arguments: Sequence[str], folder: Path) -> NoReturn:
    """Turn this forked process into the grulab program."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder / "cwd")
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name in ("GRULAB_TRACEBACK", "HYDRA_FULL_ERROR"):
            os.environ.pop(name, None)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for descriptor, path, flags in (
            (0, Path(os.devnull), os.O_RDONLY),
            (1, folder / "out", append),
            (2, folder / "err", append),
        ):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        sys.argv = ["grulab", *arguments]
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        if "torch" in sys.modules:
            (folder / "torch").touch()
        os._exit(code)


def make_odd(path: Path, kind: str) -> None:
    """Make something that is no regular file: a FIFO, a folder, a loop of links, or a link to the path ``kind``."""
    match kind:
        case "a FIFO":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a loop":
            path.symlink_to(path)
        case _:
            path.symlink_to(kind)


def names(folder: Path) -> set[str]:
    """Return the relative path of everything in a folder; links are not followed."""
    found = set()
    for parent, folders, files in os.walk(folder):
        found |= {os.path.relpath(Path(parent, name), folder) for name in (*folders, *files)}
    return found


def run_all(cases: Sequence[Case], root: Path) -> Iterator[tuple[Case, Result]]:
    """Run cases in forks of this process, two at a time, and yield each when it is done."""
    _CASES[:] = cases
    with ProcessPoolExecutor(WORKERS, get_context("fork")) as pool:
        running = {pool.submit(_run, index, root): case for index, case in enumerate(cases)}
        for done in as_completed(running):
            yield running[done], done.result()


# The cases hold functions, which cannot be sent to a process: the workers inherit this list.
_CASES: list[Case] = []


def _run(index: int, root: Path) -> Result:
    case = _CASES[index]
    folder = root / case.part / str(case.number)
    folder.mkdir(parents=True)
    try:
        return case.run(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
