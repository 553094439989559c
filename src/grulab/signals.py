"""Being asked to stop."""

import signal

# SLURM is commonly told to send SIGUSR1 before it takes a job's node away: a termination like the other.
SIGNALS = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGUSR1: signal.SIGTERM}


class Interrupted(BaseException):
    """The run was asked to stop. No ``Exception``: nobody may take it for a failure and go on.

    Attributes:
        exit_code: what the shell expects: 130 for Ctrl-C, 143 for a termination.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + SIGNALS[signal.Signals(signum)]
