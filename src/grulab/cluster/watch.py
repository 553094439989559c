"""Follow the jobs of a sweep that run on other machines, by what their folders say."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from grulab.run_folder import paths
from grulab.run_folder.summary import read_summary
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.live_table import LiveTable
from grulab.sweep.status import cause_of, result_of
from grulab.system.signals import Interrupted, handle_signals

# Folders on a network are looked at for a tenth of the time at most.
_SECONDS_BETWEEN_LOOKS, _SHARE_OF_LOOKS = 0.3, 0.1
# Schedulers are asked less and less often.
_SECONDS_BETWEEN_QUESTIONS, _AT_MOST = 1.0, 15.0


# What changes when a job's summary.json is written; None if there is none.
Stamp = tuple[int, int, int] | None


@dataclass
class _Watched:
    progress: JobProgress
    stamp: Stamp
    has_begun: bool = False


def watch(
    jobs: Sequence[JobProgress],
    stamps: Mapping[int, Stamp],
    display: LiveTable,
    is_over: Callable[[], bool],
    leave: Callable[[], str],
) -> None:
    """Show the progress of jobs until nothing works on them any more.

    Args:
        jobs: those to follow; their state is set.
        stamps: by number of the job, what attempts before these tasks have left, which does not count.
        display: shows every change.
        is_over: asked whether the scheduler has nothing left that works on them.
        leave: returns what is printed when a signal ends the command: the jobs go on without it.

    Raises:
        Interrupted: after a signal.
    """
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signum)

    watched = [_Watched(progress, stamps.get(progress.job.number)) for progress in jobs]
    pause, question = _SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_QUESTIONS
    asked = time.monotonic()
    with handle_signals(note):
        while True:
            began = time.monotonic()
            for one in watched:
                _look(one, display)
            display.slots = max(1, sum(one.progress.state == "running" for one in watched))
            display.refresh()
            pause = max(_SECONDS_BETWEEN_LOOKS, (time.monotonic() - began) / _SHARE_OF_LOOKS)
            if all(one.progress.state == "done" for one in watched):
                # The tasks are about to end.
                break
            if time.monotonic() - asked > question:
                if is_over():
                    break
                asked, question = time.monotonic(), min(question * 1.2, _AT_MOST)
            until = time.monotonic() + pause
            while not came and time.monotonic() < until:
                # A signal ends the sleep of its handler only.
                time.sleep(min(0.1, pause))
            if came:
                print(leave(), flush=True)
                raise Interrupted(came[0])
    for one in watched:
        _look(one, display)
        progress = one.progress
        if progress.state != "done" and (score := result_of(progress.folder, progress.job.config)) is not None:
            # A file system on a network may show the state of a moment ago, but not of a file that it opens.
            progress.state, progress.score, progress.cause = "done", score, ""
            display.changed(progress)
        elif progress.state not in ("done", "failed") and one.has_begun:
            progress.state, progress.cause = "interrupted", "what worked on it has ended"
            display.changed(progress)


def _look(watched: _Watched, display: LiveTable) -> None:
    progress, now = watched.progress, stamp(watched.progress.folder)
    if now == watched.stamp:
        return
    watched.stamp = now
    before, config = progress.state, progress.job.config
    summary = read_summary(progress.folder)
    state = "running" if summary is None else str(summary["status"])
    if state == "done" and (score := result_of(progress.folder, config)) is not None:
        progress.score = score
    elif state == "done":
        # Of an earlier launch with fewer epochs.
        state = "pending"
    elif state == "interrupted":
        # It is saved, and its task may start again.
        state = "pending"
    watched.has_begun = True
    if state == "running" and before != "running":
        progress.start()
    if state != "running":
        # Its own clock is better than the moments of two looks.
        progress.seconds = float((summary or {}).get("seconds", 0.0))
    progress.state, progress.cause = state, cause_of(progress.folder, config) if state == "failed" else ""
    if state not in (before, "pending"):
        display.changed(progress)


def stamp(folder: Path) -> Stamp:
    """Return the stamp of a job's folder."""
    try:
        status = (folder / paths.SUMMARY).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
