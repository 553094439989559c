"""Runs and sweeps that are killed at random moments and resumed: the numbers of those left alone."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from experiments.hostile.sandbox import Case, Outcome, Result, Violation, grulab, never
from experiments.hostile.victims import JOBS, RUN, SWEEP, TINY, other_leaderboard, other_numbers

PART = "kills"
_SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
# A killed sweep is resumed until it is done, at most this often.
_STARTS = 4
# A run takes half a second here, a sweep a second and a half.
_SECONDS = {RUN: 0.6, SWEEP: 1.6}


def cases(seed: int, count: int, limit: float, victims: Path) -> list[Case]:
    """Return as many kills as ``count``: three of five hit a run, the others a sweep or one of its jobs."""
    found = []
    for number in range(count):
        generator = random.Random(f"{PART} {seed} {number}")
        name = RUN if number % 5 < 3 else SWEEP
        moment = generator.uniform(0, _SECONDS[name])
        signum = generator.choice(_SIGNALS)
        whom = generator.choice(["the sweep", "a job"]) if name == SWEEP else "the run"
        if whom == "a job":
            signum = signal.SIGKILL
        what = f"{signum.name} to {whom} after {moment:.2f} s"
        run = partial(_kill_and_resume, victims, name, signum, moment, whom == "a job", limit)
        found.append(Case(PART, number, what, run))
    return found


def _kill_and_resume(
    victims: Path, name: str, signum: signal.Signals, moment: float, a_job: bool, limit: float, folder: Path
) -> Result:
    (folder / "cwd").mkdir()
    run_dir = folder / "cwd" / name
    start = ["train", *TINY, f"hydra.run.dir={name}"]
    if name == SWEEP:
        start = ["train", "-m", *TINY, *JOBS, f"hydra.sweep.dir={name}"]
    outcomes = [grulab(start, folder, limit, partial(_kill, signum, moment, a_job))]
    found = list(_odd_end(outcomes[0], signum, a_job))
    while outcomes[-1].code != 0 and len(outcomes) < _STARTS:
        # What was killed before it had written anything is started again.
        begun = (run_dir / "sweep.json").exists() if name == SWEEP else _has_begun(run_dir)
        outcomes.append(grulab(["resume", name] if begun else start, folder, limit))
        found += never(outcomes[-1])
    if outcomes[-1].code != 0:
        found.append(Violation("not resumed", outcomes[-1].stderr))
    elif name == RUN:
        found += other_numbers(victims / RUN, run_dir)
    else:
        found += other_leaderboard(victims, run_dir)
        for job in sorted((victims / SWEEP).glob("0*")):
            found += other_numbers(job, run_dir / job.name)
    seconds, peak = (max(getattr(outcome, name) for outcome in outcomes) for name in ("seconds", "peak"))
    return Result(replace(outcomes[0], seconds=seconds, peak=peak), found)


def _has_begun(run_dir: Path) -> bool:
    """Return whether a run has written more than its lock, while Hydra may be writing its own files."""
    return any(path.name not in (".owner", ".hydra", "run.log") for path in run_dir.glob("*"))


def _odd_end(outcome: Outcome, signum: signal.Signals, a_job: bool) -> Iterator[Violation]:
    """Yield a violation if a killed command ends as it should not; it may have been done before the signal."""
    expected = {0, 1} if a_job else {0, -signum, 128 + signum}
    if outcome.code not in expected:
        yield Violation("odd end of a killed command", f"exit code {outcome.code}: {outcome.stderr}")
    elif outcome.code != -signum:
        yield from never(outcome)


def _kill(signum: signal.Signals, moment: float, a_job: bool, pid: int) -> None:
    time.sleep(moment)
    victims = [pid]
    if a_job:
        with suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            victims = [int(child) for child in children]
    for victim in victims:
        with suppress(ProcessLookupError):
            os.killpg(victim, signum)
