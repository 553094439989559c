"""Start sweeps as users do, kill their processes, and check what is left behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

# Columns of leaderboard.csv that differ between two runs of the same sweep.
WALL_TIMES = ["seconds", "sequences_per_second"]
_MARK = "GRULAB_STUDY"
_SECONDS_TO_DIE = 10.0
_SECONDS_OF_START_UP = 5.0


class Sweep:
    """A ``grulab`` command and all processes it starts, marked by an environment variable.

    Args:
        arguments: arguments of ``grulab``.
        cwd: working directory.
        log: file to which the output is appended.
        program: command to run instead of ``grulab``.
        own_group: whether the command has a process group of its own, as a shell's job has.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        log: Path,
        program: Sequence[str] = (),
        own_group: bool = False,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        command = [*(program or [str(Path(sys.executable).with_name("grulab"))]), *arguments]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                stdout=stream,
                stderr=stream,
                env=os.environ | {_MARK: self.mark},
                process_group=0 if own_group else None,
            )

    def members(self) -> list[int]:
        """Return the ids of all living processes of this command, orphans included."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                is_ours = f"{_MARK}={self.mark}".encode() in path.read_bytes().split(b"\0")
                is_zombie = (path.parent / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
                if is_ours and not is_zombie:
                    found.append(int(path.parent.name))
        return found

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until the condition holds.

        Raises:
            AssertionError: if the command ends before, or if it takes longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def orphans(self) -> list[int]:
        """Return the processes that are still alive ten seconds after the command has ended."""
        deadline = time.monotonic() + _SECONDS_TO_DIE
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


def done_jobs(sweep_dir: Path) -> dict[str, bytes]:
    """Return the summary.json of each finished job; it changes if the job runs again."""
    found = {}
    for path in sweep_dir.glob("*/summary.json"):
        content = path.read_bytes()
        with suppress(ValueError):
            if json.loads(content)["status"] == "done":
                found[path.parent.name] = content
    return found


def processes_of(sweep_dir: Path) -> list[int]:
    """Return the id of the process that last had the folder of each job, in the order of the jobs."""
    return [json.loads(path.read_text())["pid"] for path in sorted(sweep_dir.glob("*/.owner"))]


def leaderboard(sweep_dir: Path) -> str:
    """Return leaderboard.csv apart from wall times."""
    table = pd.read_csv(sweep_dir / "leaderboard.csv", dtype=str)
    return str(table.drop(columns=WALL_TIMES).to_csv(index=False))


def kill_until_done(
    arguments: Sequence[str],
    sweep_dir: Path,
    kills: int,
    seconds: float,
    generator: random.Random,
    additions: Sequence[str] = (),
) -> dict[str, int]:
    """Run a sweep to its end, killing it and its jobs with -9 at random moments and resuming it.

    Args:
        arguments: arguments of ``grulab train -m``, without the folder.
        sweep_dir: the sweep's folder.
        kills: number of kills, if the sweep does not end before.
        seconds: longest time to a kill, from the first running job or the last kill; at every fifth start the time
            counts from the start of the command instead, so that kills hit the start-up too.
        generator: draws the moments and the victims.
        additions: values that ``grulab resume`` adds to a sweep that is there.

    Returns:
        The numbers of kills of the parent, of kills of a job, of starts, of orphans, and of jobs that ran again after
        they were done.
    """
    counts = {"parent": 0, "job": 0, "starts": 0, "orphans": 0, "jobs run again": 0}
    done: dict[str, bytes] = {}
    log = sweep_dir.with_suffix(".log")
    code: int | None = None
    while code != 0:
        # A sweep that was killed before it wrote sweep.json has to be started again.
        known = (sweep_dir / "sweep.json").exists()
        words = (
            ["resume", sweep_dir.name, *additions]
            if known
            else ["train", "-m", *arguments, f"hydra.sweep.dir={sweep_dir.name}"]
        )
        sweep = Sweep(words, sweep_dir.parent, log)
        counts["starts"] += 1
        code = _kill_at_random(sweep, kills, seconds, generator, counts)
        counts["orphans"] += len(sweep.orphans())
        now = done_jobs(sweep_dir)
        counts["jobs run again"] += sum(now.get(job) != summary for job, summary in done.items())
        done = now
        assert code in (0, 1, -signal.SIGKILL), f"exit code {code}; see {log}"
    return counts


def _kill_at_random(
    sweep: Sweep, kills: int, seconds: float, generator: random.Random, counts: dict[str, int]
) -> int:
    """Kill jobs until the parent is hit or the sweep ends; return its exit code."""
    if counts["starts"] % 5:
        while sweep.process.poll() is None and len(sweep.members()) < 2:
            time.sleep(0.02)
    else:
        seconds = _SECONDS_OF_START_UP
    while counts["parent"] + counts["job"] < kills:
        try:
            return sweep.process.wait(generator.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            pass
        jobs = [pid for pid in sweep.members() if pid != sweep.process.pid]
        victim = "job" if jobs and generator.random() < 0.5 else "parent"
        with suppress(ProcessLookupError):
            os.kill(generator.choice(jobs) if victim == "job" else sweep.process.pid, signal.SIGKILL)
            counts[victim] += 1
        if victim == "parent":
            break
    return sweep.process.wait()
