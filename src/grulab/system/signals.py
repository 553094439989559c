"""The signals that ask a process to stop, and how they are taken."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

# All but Ctrl-C are terminations: SLURM is commonly told to send SIGUSR1 before it takes a job's node away, and a
# terminal that is closed sends SIGHUP.
SIGNALS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
# A signal that comes again so soon is the same one: sent to a process group, and passed on by the parent.
_SECONDS_OF_ONE_SIGNAL = 0.5

Handler = Callable[[int, FrameType | None], object]


class Interrupted(BaseException):
    """The run was asked to stop. It is no ``Exception``, so that no handler takes it for a failure and goes on.

    Attributes:
        exit_code: for the shell: 130 for Ctrl-C, 143 for a termination.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + SIGNALS[signal.Signals(signum)]


class RepeatFilter:
    """Tells a second signal from the first one that was delivered twice."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_repeat(self) -> bool:
        """Return whether the last signal came a moment ago; call it once for each signal."""
        before, self._last = self._last, time.monotonic()
        return self._last - before < _SECONDS_OF_ONE_SIGNAL


@contextmanager
def handle_signals(handler: Handler) -> Iterator[list[signal.Signals]]:
    """Handle the signals; afterwards they do what they did before. Python delivers them to the main thread alone.

    Yields:
        The signals that were taken. One that the process ignores stays ignored: a shell starts background processes
        so on purpose. A handler that was installed from C could not be put back, and stays too.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    taken = [signum for signum, handler_before in before.items() if handler_before not in (signal.SIG_IGN, None)]
    install_handler(handler, taken)
    try:
        yield taken
    finally:
        for signum in taken:
            signal.signal(signum, before[signum])


def handle_defaults(handler: Handler) -> None:
    """Handle the signals that would end the process without a word, until the process ends."""
    if threading.current_thread() is threading.main_thread():
        install_handler(handler, [signum for signum in SIGNALS if signal.getsignal(signum) == signal.SIG_DFL])


def install_handler(handler: Handler, signums: Iterable[signal.Signals] = SIGNALS) -> None:
    """Set the handler of these signals, if this is the main thread."""
    if threading.current_thread() is threading.main_thread():
        for signum in signums:
            signal.signal(signum, handler)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Keep the signals back meanwhile; a process that is started inside inherits that they are blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let the signals through again, in a process that was started inside :func:`blocked_signals`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
