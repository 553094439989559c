"""Stop a run at the next step after Ctrl-C or a termination signal, with its state saved."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from grulab.system.signals import Interrupted, RepeatFilter, handle_signals, install_handler


class GracefulStop(L.Callback):
    """Turns signals into a stop request that is checked between two batches.

    Outside the training and test loops a signal stops the run at once, because there is nothing to save. Inside the
    loops a signal only sets a flag, and :meth:`check` stops the run after the state is saved. A checkpoint that is
    being written is completed. A second signal ends the process at once.

    Args:
        mark: called before a second signal ends the process; marks the run as interrupted in its folder.
    """

    def __init__(self, mark: Callable[[], None]) -> None:
        self.signum: int | None = None
        self._mark = mark
        self._inside_a_loop = False
        self._repeats = RepeatFilter()
        self._taken: list[signal.Signals] = []

    @property
    def requested(self) -> bool:
        """Whether the run has to stop."""
        return self.signum is not None

    def check(self) -> None:
        """Stop the run if a stop was requested.

        Raises:
            Interrupted: if a stop was requested.
        """
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Install the signal handlers; restore the previous handlers on exit."""
        with handle_signals(self._handle) as self._taken:
            yield

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reinstall the handlers: Lightning has installed its own, and its handler of SIGTERM exits with 0."""
        self._enter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the run if requested: the last state is saved."""
        self._inside_a_loop = False
        self.check()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reinstall the handlers, as for training."""
        self._enter()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop the run if requested: the test has no state to save."""
        self.check()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the run if requested; from here on a signal stops it at once."""
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
