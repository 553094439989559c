"""A process that runs the jobs of one slot, one after another, as the launcher sees it; worker.py is what it does."""

import os
import signal
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from grulab.sweep.hydra_jobs import Bases, HydraParts
from grulab.sweep.job import Job

_SECONDS_TO_END = 5.0


class WorkerProcess:
    """A child process that waits for jobs.

    Args:
        parts: the arguments that Hydra passes to the launcher.
        bases: the composed configurations; see :func:`grulab.sweep.hydra_jobs.compose_bases`.
        slot: value of CUDA_VISIBLE_DEVICES for the jobs; None keeps the present value.

    Attributes:
        slot: as the argument.
        goes_on: whether it can take another job.
    """

    def __init__(self, parts: HydraParts, bases: Bases, slot: str | None) -> None:
        from grulab.sweep.worker import work

        self.slot = slot
        self.goes_on = True
        self._connection, its_end = Pipe()
        arguments = (parts, bases, slot, its_end, os.getpid())
        self._process = get_context("fork").Process(target=work, args=arguments)
        self._process.start()
        # If this end stayed open here, its end would not be seen.
        its_end.close()

    @property
    def pid(self) -> int:
        """Its process id, which is that of its process group too."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def waitables(self) -> tuple[Connection, int]:
        """What :func:`multiprocessing.connection.wait` can wait for, to learn that a job has ended."""
        return self._connection, self._process.sentinel

    def start(self, job: Job, folder: Path) -> bool:
        """Begin a job; return False if the process has ended meanwhile."""
        try:
            self._connection.send((job, folder))
        except OSError:
            return False
        return True

    def ended(self) -> int | None:
        """Return the exit code that the present job stands for, or None while it runs; 0 may leave a process."""
        try:
            if self._connection.poll():
                self.goes_on = self._connection.recv()
                return 0
            if self._process.is_alive():
                return None
        except (EOFError, OSError):
            pass
        self.goes_on = False
        self._process.join(_SECONDS_TO_END)
        self.kill()
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it, and free what it takes here."""
        self.goes_on = False
        self.kill()
        self._process.join()
        self._process.close()
        self._connection.close()

    def signal(self, signum: int) -> None:
        """Signal it and the processes that it has started: its process group, whose id is its process id."""
        with suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self.pid, signum)
            except ProcessLookupError:
                # A process that was forked a moment ago has no group of its own yet.
                if self._process.is_alive():
                    os.kill(self.pid, signum)
