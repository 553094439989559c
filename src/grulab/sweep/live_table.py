"""The display of a running sweep: a live table on a terminal, or else one line for each change of state."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grulab.sweep.job_progress import JobProgress
from grulab.system.active_time import active_time

_SECONDS_BETWEEN_DRAWINGS = 0.25
_STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "bold"}
_SHOW_CURSOR, _HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"
# Number of recently ended jobs that the table shows beside the running jobs.
_ENDED_SHOWN = 8


class LiveTable:
    """Shows the progress of a sweep; a context manager.

    Args:
        jobs: all jobs of the sweep.
        slots: number of jobs that run at the same time.
    """

    def __init__(self, jobs: Sequence[JobProgress], slots: int) -> None:
        self.jobs, self.slots = jobs, slots
        self.is_stopping = False
        # What a scheduler says of the tasks that run the jobs.
        self._queue = ""
        self._began = active_time()
        self._drawn = 0.0
        self._ended: list[JobProgress] = []
        self._live: Live | None = None
        if sys.stdout.isatty():
            # No refresh thread, because jobs are forked from this process.
            self._live = Live(console=Console(), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        before = sum(job.state == "done before" for job in self.jobs)
        done = f"{before} done before, " if before else ""
        todo = len(self.jobs) - before
        _say(f"{many(len(self.jobs), 'job')}: {done}{todo} to do, {min(self.slots, todo)} at once")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def changed(self, job: JobProgress) -> None:
        """Show the new state of a job."""
        job.update()
        if job.state not in ("running", "pending"):
            self._ended.append(job)
        if job.state == "running" and self._live is None:
            return
        if self._live is None or job.state == "failed":
            # A failure is printed at once, and stays above the table.
            self._print(self._line(job))
        self.refresh(now=True)

    def queue(self, words: str, is_waiting: bool) -> None:
        """Show what a scheduler says of the tasks; without a table only if all of them wait, and once."""
        if words != self._queue and is_waiting and self._live is None:
            _say(f"waiting  {words}")
        self._queue = words

    def stopping(self, running: int) -> None:
        """Show that the running jobs are being stopped."""
        self.is_stopping = True
        verb = "saves itself" if running == 1 else "save themselves"
        self._print(f"stopping: {many(running, 'job')} {verb}; a second signal stops them at once")

    @contextmanager
    def visible_cursor(self) -> Iterator[None]:
        """Show the terminal's cursor, which the live table hides, in this context."""
        self._write(_SHOW_CURSOR)
        yield
        self._write(_HIDE_CURSOR)

    def _write(self, control: bytes) -> None:
        # Not through rich: a signal handler calls this, perhaps in the middle of a drawing.
        if self._live:
            with suppress(OSError):
                os.write(sys.stdout.fileno(), control)

    def refresh(self, now: bool = False) -> None:
        """Draw the table if an update is due, or if ``now`` is true."""
        if self._live and (now or active_time() - self._drawn > _SECONDS_BETWEEN_DRAWINGS):
            self._drawn = active_time()
            self._update()
            with _without_reader():
                self._live.update(self._table(), refresh=True)

    def _line(self, job: JobProgress) -> str:
        state = "failed, again" if job.state == "pending" else job.state
        score = f"  {job.job.config.checkpoint.monitor} {job.score:.4f}" if job.score is not None else ""
        cause = f"  {job.cause}" if job.cause else ""
        self._update()
        left = self._seconds_left()
        time_left = f", {_duration(left)} left" if left else ""
        over = f"{self._over()} of {len(self.jobs)}{time_left}"
        return f"{state}  {job.job.folder}{score}{cause}  {job.seconds:.1f} s  ({over})"

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("job", "state", "epoch", "best", "time", "left"):
            table.add_column(heading, no_wrap=True)
        for job in [*self._ended[-_ENDED_SHOWN:], *self._running()]:
            seconds = active_time() - job.began if job.state == "running" else job.seconds
            left = job.seconds_left()
            table.add_row(
                Text(job.job.folder, overflow="ellipsis"),
                Text(job.state, style=_STYLES.get(job.state, "")),
                f"{job.epochs}/{job.job.config.trainer.max_epochs}",
                "" if job.best is None else f"{job.best:.4f}",
                _duration(seconds),
                "" if left is None else _duration(left),
            )
        counts = {state: sum(job.state == state for job in self.jobs) for state in ("failed", "interrupted")}
        over, left = self._over(), self._seconds_left()
        words = [f"{over} of {len(self.jobs)}", *(f"{count} {state}" for state, count in counts.items() if count)]
        words += [f"{_duration(active_time() - self._began)} gone"]
        words += [f"about {_duration(left)} left"] if left else []
        words += [f"tasks: {self._queue}"] if self._queue else []
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(len(self.jobs), over, width=30), Text(", ".join(words)))
        return Group(table, Text(), bar)

    def _running(self) -> list[JobProgress]:
        return [job for job in self.jobs if job.state == "running"]

    def _over(self) -> int:
        return sum(job.state not in ("pending", "running") for job in self.jobs)

    def _update(self) -> None:
        for job in self._running():
            job.update()

    def _seconds_left(self) -> float | None:
        """Return the estimated seconds until the sweep ends, from the mean time of the jobs that are done."""
        ended = [job for job in self._ended if job.state == "done"]
        waiting = sum(job.state == "pending" for job in self.jobs)
        running = self._running()
        if not ended or not (waiting or running):
            return None
        mean = sum(job.seconds for job in ended) / len(ended)
        rest = [left if (left := job.seconds_left()) is not None else mean for job in running]
        return (waiting * mean + sum(rest)) / self.slots

    def _print(self, text: str) -> None:
        if self._live:
            with _without_reader():
                self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            _say(text)


def many(count: int, noun: str) -> str:
    """Return a number of things in words, ``1 job`` or ``2 jobs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    with _without_reader():
        print(text, flush=True)


@contextmanager
def _without_reader() -> Iterator[None]:
    """Continue without the output after a write error: the pipe or terminal is closed, or the disk is full."""
    try:
        yield
    except OSError:
        # Stays open until the process ends, like the stream that it replaces.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
