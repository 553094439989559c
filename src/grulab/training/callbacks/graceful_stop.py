"""Ctrl-C and termination: stop at the next step, with everything saved."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from grulab.system.signals import Interrupted, RepeatFilter, handle_signals, install_handler


class GracefulStop(L.Callback):
    """Turns signals into a request that is read between two batches.

    Before and after the loops a signal stops the run at once: there is nothing to save. Inside them it only sets a
    flag; after the state is saved, :meth:`check` stops the run. A checkpoint that is being written is finished. A
    second signal stops the process at once.

    Args:
        mark: called before the process ends at a second signal; says in the run's folder that it was interrupted.
    """

    def __init__(self, mark: Callable[[], None]) -> None:
        self.signum: int | None = None
        self._mark = mark
        self._inside_a_loop = False
        self._repeats = RepeatFilter()
        self._taken: list[signal.Signals] = []

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
        with handle_signals(self._handle) as self._taken:
            yield

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
        """The rest takes no time."""
        self._inside_a_loop = False
        self.check()

    def _enter(self) -> None:
        self._inside_a_loop = True
        install_handler(self._handle, self._taken)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        is_repeat = self._repeats.is_repeat()
        if self.requested:
            if is_repeat:
                return
            self._mark()
            os._exit(Interrupted(signum).exit_code)
        self.signum = signum
        if not self._inside_a_loop:
            raise Interrupted(signum)
