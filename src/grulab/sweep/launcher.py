"""The local launcher: run the jobs of a sweep in parallel, each slot in its own process, and detect crashes."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from hydra.core.utils import JobReturn

from grulab.config.overrides import structure_of
from grulab.sweep.failures import DISK_FULL_CAUSE, DISK_FULL_EXIT, LOCKED_EXIT
from grulab.sweep.hydra_jobs import Bases, HydraParts, compose_bases
from grulab.sweep.job import Job
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.job_scores import has_diverged
from grulab.sweep.launcher_settings import LocalSettings
from grulab.sweep.live_table import LiveTable
from grulab.sweep.status import cause_of, record_failure, result_of
from grulab.sweep.worker_process import WorkerProcess
from grulab.system.active_time import active_time, time_stands_still
from grulab.system.signals import (
    PAUSES,
    SIGNALS,
    Interrupted,
    RepeatFilter,
    blocked_signals,
    handle_signals,
    pause,
)

# Interval at which the main loop checks time limits and signals and refreshes the table.
_SECONDS_BETWEEN_LOOKS = 0.1
# Time for a job that exceeds its time limit to save its state, before it is killed.
_GRACE_SECONDS = 10.0
_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


@dataclass
class _Running:
    progress: JobProgress
    worker: WorkerProcess
    out_of_memory_before: int
    stop_at: float = float("inf")
    kill_at: float = float("inf")


# () -> jobs that have become possible, which are in sweep.json; [] if others have to end first.
More = Callable[[], Sequence[Job]]


def launch(
    parts: HydraParts,
    settings: LocalSettings,
    jobs: Sequence[Job],
    more: More = lambda: [],
    given_up: set[int] | None = None,
    at_once: int | None = None,
) -> list[JobReturn]:
    """Run the jobs that are not done yet, one job per slot at a time.

    Args:
        parts: the arguments that Hydra passes to the launcher.
        settings: the launcher's settings.
        jobs: of sweep.json.
        more: asked for further jobs whenever there is room for one.
        given_up: numbers of the jobs that have diverged in this command, which are not run again; it is extended.
        at_once: the number of jobs that run at the same time; None takes what the machine allows.

    Returns:
        The result of each job, further ones included: the monitored metric, or an exception.

    Raises:
        ConfigError: if this machine lacks something that the jobs or the settings require.
        Interrupted: after a signal, when the running jobs have saved their state.
    """
    sweep_dir = Path(parts.config.hydra.sweep.dir)
    todo: deque[JobProgress] = deque()
    everything: list[JobProgress] = []

    def add(jobs: Iterable[Job]) -> None:
        for job in jobs:
            everything.append(JobProgress(job, sweep_dir / job.folder))
            everything[-1].look_before(sweep_dir, hopeless)
            if everything[-1].state == "pending":
                todo.append(everything[-1])

    def ask() -> None:
        add(more())

    hopeless = set() if given_up is None else given_up
    add(jobs)
    if not todo:
        ask()
    if todo:
        from grulab.sweep.worker import prepare_to_fork

        configs = [progress.job.config for progress in todo]
        prepare_to_fork(configs)
        from grulab.sweep.slots import find_slots, notes

        slots = find_slots(configs, settings, at_once)
        bases = compose_bases(parts, [progress.job for progress in todo])
        for note in notes(configs, settings, slots):
            print(f"note: {note}")
        with LiveTable(everything, len(slots)) as display:
            _Launcher(parts, bases, settings, slots, display, ask).run(todo)
    hopeless |= {job.job.number for job in everything if job.state == "failed" and has_diverged(job.folder)}
    # One that went on to its next rung is there twice.
    last = {progress.job.number: progress for progress in everything}
    return [last[number].returned() for number in sorted(last)]


class _Launcher:
    """Starts jobs while slots are free, and monitors the running jobs.

    Args:
        parts: the arguments that Hydra passes to the launcher.
        bases: the composed configurations; see :func:`compose_bases`.
        settings: the launcher's settings.
        slots: for each job that runs at the same time, its device; see :func:`grulab.sweep.slots.find_slots`.
        display: the table that shows every change of state.
        ask: appends jobs that have become possible to those to do.
    """

    def __init__(
        self,
        parts: HydraParts,
        bases: Bases,
        settings: LocalSettings,
        slots: Sequence[str | None],
        display: LiveTable,
        ask: Callable[[], None],
    ) -> None:
        self._ask = ask
        self.parts, self.bases, self.settings, self.display = parts, bases, settings, display
        # A slot is its process, if that can take another job, or else the device for a new one.
        self.free: list[str | WorkerProcess | None] = list(slots)
        self.running: list[_Running] = []
        self.signals: list[int] = []
        self._repeats = RepeatFilter()
        # Whether nothing is started any more.
        self._is_over = False

    def run(self, todo: deque[JobProgress]) -> None:
        """Run all jobs; no job is running when this returns or raises.

        Raises:
            Interrupted: after a signal.
        """
        with handle_signals(self._note_signal), handle_signals(self._pause, PAUSES):
            try:
                while self.running or (todo and not self.signals):
                    while todo and self.free and not self.signals:
                        self._start(todo.popleft())
                        if not todo and self.free and not self.signals:
                            self._ask()
                    wait(
                        [one for running in self.running for one in running.worker.waitables], _SECONDS_BETWEEN_LOOKS
                    )
                    self._pass_on_signals()
                    for running in list(self.running):
                        code = running.worker.ended()
                        if code is not None:
                            self._end(running, code, todo)
                            if not todo and not self.signals and not self._is_over:
                                self._ask()
                        else:
                            self._keep_time(running)
                    self.display.refresh()
            finally:
                # Idle processes, and jobs too if the loop above raised an error.
                for worker in (*(running.worker for running in self.running), *self.free):
                    if isinstance(worker, WorkerProcess):
                        worker.close()
        if self.signals:
            raise Interrupted(self.signals[0])

    def _start(self, progress: JobProgress) -> None:
        slot = self.free.pop(0)
        if structure_of(progress.job.overrides) not in self.bases:
            self.bases |= compose_bases(self.parts, [progress.job])
        progress.start()
        # A signal that the child receives before it installs its handlers would be lost, and a pause before the job
        # is among the running ones would not reach it.
        with blocked_signals([*SIGNALS, *PAUSES]):
            running = _Running(progress, self._begin(progress, slot), _out_of_memory_kills())
            if self.settings.time_limit is not None:
                running.stop_at = progress.began + self.settings.time_limit
            self.running.append(running)
        self.display.changed(progress)

    def _begin(self, progress: JobProgress, slot: str | WorkerProcess | None) -> WorkerProcess:
        """Send a job to the process of a slot, or to a new one."""
        if isinstance(slot, WorkerProcess):
            if slot.start(progress.job, progress.folder):
                return slot
            slot.close()
            slot = slot.slot
        worker = WorkerProcess(self.parts, self.bases, slot)
        try:
            worker.start(progress.job, progress.folder)
        except BaseException:
            worker.close()
            raise
        return worker

    def _end(self, running: _Running, code: int, todo: deque[JobProgress]) -> None:
        progress, worker = running.progress, running.worker
        self.running.remove(running)
        # A signal for a job that ended at that moment may still reach its process.
        if worker.goes_on and self.settings.reuse and not self.signals and running.kill_at == float("inf"):
            self.free.append(worker)
        else:
            # The job may have left DataLoader workers.
            worker.close()
            self.free.append(worker.slot)
        progress.seconds += active_time() - progress.began
        progress.score = result_of(progress.folder, progress.job.config)
        if progress.score is not None:
            progress.state = "done"
        elif running.kill_at < float("inf"):
            limit = f"took longer than hydra.launcher.time_limit={self.settings.time_limit:g} seconds"
            self._record(progress, "TimeLimitError", limit)
            progress.state = "failed"
        elif self.signals and (code < 0 or code in _INTERRUPTED):
            progress.state = "interrupted"
        elif code < 0 or code in _INTERRUPTED:
            signum = -code if code < 0 else code - 128
            reason = _death(signum, running.out_of_memory_before)
            self._record(progress, "Killed", reason)
            progress.state = "failed"
        else:
            progress.state = "failed"
        if progress.state == "failed":
            causes = {DISK_FULL_EXIT: DISK_FULL_CAUSE, LOCKED_EXIT: "is in use by another process; see its run.log"}
            progress.cause = causes.get(code) or cause_of(progress.folder, progress.job.config)
            if progress.attempts <= self.settings.retries:
                progress.state = "pending"
                todo.append(progress)
            elif self.settings.on_failure == "stop":
                self._is_over = True
                todo.clear()
        self.display.changed(progress)

    def _record(self, progress: JobProgress, kind: str, message: str) -> None:
        # On a full disk the failure cannot be recorded, and the other jobs have to continue.
        with suppress(OSError):
            record_failure(progress.folder, progress.job.config, kind, message)

    def _keep_time(self, running: _Running) -> None:
        now = active_time()
        if now > running.kill_at:
            running.worker.kill()
        elif now > running.stop_at and running.kill_at == float("inf"):
            running.kill_at = now + _GRACE_SECONDS
            os.kill(running.worker.pid, signal.SIGTERM)

    def _pass_on_signals(self) -> None:
        """Forward the first signal to the jobs, so that they save their state; kill them at the second signal."""
        if len(self.signals) > 1:
            for running in self.running:
                running.worker.kill()
        elif self.signals and not self.display.is_stopping:
            self.display.stopping(len(self.running))
            for running in self.running:
                os.kill(running.worker.pid, self.signals[0])

    def _pause(self, signum: int, frame: FrameType | None) -> None:
        """Stop the jobs, which have no terminal that could stop them, and this process; continue them after SIGCONT.

        This is done in the handler, because the terminal repeats SIGTTOU until the process stops.
        """
        with time_stands_still():
            for running in self.running:
                running.worker.signal(signal.SIGSTOP)
            # Writing is what SIGTTOU forbids.
            with self.display.visible_cursor() if signum == signal.SIGTSTP else nullcontext():
                pause(signum)
            for running in self.running:
                running.worker.signal(signal.SIGCONT)

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self._repeats.is_repeat():
            self.signals.append(signum)


def _death(signum: int, out_of_memory_before: int) -> str:
    name = signal.Signals(signum).name
    if signum in SIGNALS:
        return f"by {name}, and not by the sweep"
    if signum != signal.SIGKILL:
        return f"by {name}; run.log may tell where it was"
    if _out_of_memory_kills() > out_of_memory_before:
        return f"by {name}, and the machine ran out of memory meanwhile"
    return f"by {name}: by hand, or by what limits its memory"


def _out_of_memory_kills() -> int:
    """Return the number of processes that the kernel has killed for lack of memory since the machine started."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
