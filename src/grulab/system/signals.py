"""Being asked to stop."""

import signal

# Terminations like the other: SLURM is commonly told to send SIGUSR1 before it takes a job's node away, and a
# terminal that is closed sends SIGHUP.
SIGNALS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}

# A signal that comes again so soon is the same one: to a process group, and passed on by the parent.
SECONDS_OF_ONE_SIGNAL = 0.5


class Interrupted(BaseException):
    """The run was asked to stop. No ``Exception``: nobody may take it for a failure and go on.

    Attributes:
        exit_code: what the shell expects: 130 for Ctrl-C, 143 for a termination.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + SIGNALS[signal.Signals(signum)]
