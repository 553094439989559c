"""Ctrl-C and termination: stop at the next step, with everything saved."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from grulab.system.signals import SECONDS_OF_ONE_SIGNAL, SIGNALS, Interrupted
from grulab.training.callbacks.base import RunCallback


class Interruption(RunCallback):
    """Turns signals into a request that is read between two batches.

    Before and after the loops a signal stops the run at once: there is nothing to save. Inside them it only sets a
    flag, and whoever can save the state asks :meth:`check`; a checkpoint that is being written is written to its end.
    A second signal stops the process at once.

    Args:
        mark: called before the process ends at a second signal; says in the run's folder that it was interrupted.
    """

    def __init__(self, mark: Callable[[], None]) -> None:
        self.signum: int | None = None
        self._mark = mark
        self._inside_a_loop = False
        self._heard = float("-inf")
        self._mine: list[signal.Signals] = []

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self.signum is not None

    def check(self) -> None:
        """Stop the run, if that was asked for.

        Raises:
            Interrupted: if so.
        """
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals; afterwards they do what they did before."""
        if threading.current_thread() is not threading.main_thread():
            # Python delivers signals to the main thread alone.
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        # Who started this process ignoring a signal (a shell does, for what it puts in the background) meant it; what
        # was installed from C cannot be put back.
        self._mine = [signum for signum, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        self._install()
        try:
            yield
        finally:
            for signum in self._mine:
                signal.signal(signum, before[signum])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back: Lightning has handlers of its own, and its SIGTERM exits with 0."""
        self._enter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last state is saved."""
        self._inside_a_loop = False
        self.check()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As for training."""
        self._enter()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop between two batches: the test has no state worth keeping."""
        self.check()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What is left is done in no time."""
        self._inside_a_loop = False
        self.check()

    def _enter(self) -> None:
        self._inside_a_loop = True
        if threading.current_thread() is threading.main_thread():
            self._install()

    def _install(self) -> None:
        for signum in self._mine:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        before, self._heard = self._heard, now
        if self.requested:
            if now - before < SECONDS_OF_ONE_SIGNAL:
                return
            self._mark()
            os._exit(Interrupted(signum).exit_code)
        self.signum = signum
        if not self._inside_a_loop:
            raise Interrupted(signum)
