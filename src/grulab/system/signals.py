"""Handle the signals that ask a process to end or to pause."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

# All but Ctrl-C count as terminations: SLURM is commonly configured to send SIGUSR1 before it takes a job's node
# away, and closing a terminal sends SIGHUP.
SIGNALS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
# What a slice of a sweep exits with after a signal: sysexits.h's EX_TEMPFAIL, a failure that another try mends.
COME_AGAIN = 75
# Ctrl-Z, and the terminal's answer to a background process that reads or, if it is set up so, writes.
PAUSES = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# A repeated signal within this time is the same signal: sent to the process group, and also forwarded by the parent.
_SECONDS_OF_ONE_SIGNAL = 0.5

Handler = Callable[[int, FrameType | None], object]


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an ``Exception``, so that ``except Exception`` does not catch it.

    Attributes:
        signum: the signal.
        exit_code: the exit code of the process: 130 for Ctrl-C, 143 for a termination.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.exit_code = 128 + SIGNALS[signal.Signals(signum)]


class RepeatFilter:
    """Distinguish a second signal from a first signal that was delivered twice."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_repeat(self) -> bool:
        """Return whether the previous signal came a moment ago; call this once for each signal."""
        before, self._last = self._last, time.monotonic()
        return self._last - before < _SECONDS_OF_ONE_SIGNAL


@contextmanager
def handle_signals(handler: Handler, signums: Iterable[signal.Signals] = SIGNALS) -> Iterator[list[signal.Signals]]:
    """Install the handler for the signals, in the main thread only, and restore the previous handlers at the end.

    Yields:
        The signals with the new handler. An ignored signal stays ignored: a shell starts background processes that
        way on purpose. A handler that was installed from C stays too, because Python could not restore it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {signum: signal.getsignal(signum) for signum in signums}
    taken = [signum for signum, handler_before in before.items() if handler_before not in (signal.SIG_IGN, None)]
    install_handler(handler, taken)
    try:
        yield taken
    finally:
        for signum in taken:
            signal.signal(signum, before[signum])


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Let the first signal that comes in this context act at its end, by the handler from before; a second one exits.

    Unlike :func:`blocked_signals` this works beside threads, which receive a signal that only this thread blocks, and
    the mask of a child process stays as it is.
    """
    came: list[int] = []
    repeats = RepeatFilter()

    def note(signum: int, frame: FrameType | None) -> None:
        if not repeats.is_repeat() and came:
            os._exit(Interrupted(signum).exit_code)
        came.append(signum)

    try:
        with handle_signals(note):
            yield
    finally:
        for signum in came[:1]:
            signal.raise_signal(signum)


def handle_defaults(handler: Handler) -> None:
    """Install the handler permanently for the signals that would otherwise end the process without a message."""
    if threading.current_thread() is threading.main_thread():
        install_handler(handler, [signum for signum in SIGNALS if signal.getsignal(signum) == signal.SIG_DFL])


def install_handler(handler: Handler, signums: Iterable[signal.Signals] = SIGNALS) -> None:
    """Set the handler of these signals, if this is the main thread."""
    if threading.current_thread() is threading.main_thread():
        for signum in signums:
            signal.signal(signum, handler)


def restore_default_pauses() -> None:
    """Let this process pause by itself again, in a child of a process that has handlers for it."""
    for signum in PAUSES:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def pause(signum: int) -> None:
    """Stop this process until SIGCONT, as the signal does that has no handler."""
    handler = signal.signal(signum, signal.SIG_DFL)
    try:
        signal.raise_signal(signum)
    finally:
        signal.signal(signum, handler)


@contextmanager
def blocked_signals(signums: Iterable[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Block the signals in this context; a process that is started inside inherits the blocked signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Unblock the signals in a process that was started inside :func:`blocked_signals`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*SIGNALS, *PAUSES])
