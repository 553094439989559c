"""The exceptions of a sweep."""

from pathlib import Path

from grulab.run_folder.paths import display_path

# Exit code of a job that found the disk full, and could perhaps not write that down: sysexits.h's EX_IOERR.
DISK_FULL_EXIT = 74
# Of a job whose folder another process has, so that it cannot write there why it failed.
LOCKED_EXIT = 73
# The error of a run whose loss is not finite, in its summary.json.
DIVERGED = "NonFiniteLossError"
DISK_FULL_CAUSE = "DiskFullError: the disk is full"


class SweepFailedError(RuntimeError):
    """The sweep has ended, and some of its jobs failed.

    Attributes:
        command: the one that goes on with it.
    """

    def __init__(self, failed: int, not_run: int, jobs: int, sweep_dir: Path, is_disk_full: bool = False) -> None:
        stopped = f", and {not_run} were not started" if not_run else ""
        full = "the disk is full; make room, then " if is_disk_full else ""
        super().__init__(f"{failed} of {jobs} jobs failed{stopped}; {full}")
        self.command = f"grulab resume {display_path(sweep_dir)}"

    def __str__(self) -> str:
        return f"{self.args[0]}{self.command} goes on with all that are left"


class Submitted(Exception):
    """A scheduler has the jobs of a sweep, and the command does not wait for them; the text says how to come back."""


class JobFailedError(RuntimeError):
    """A job of the sweep failed; its summary.json has the traceback."""


class JobNotRunError(JobFailedError):
    """The sweep was stopped before this job started."""
