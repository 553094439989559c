"""What a Ray task does: run ``grulab work`` in a process of its own, and end it when the task ends.

A worker of Ray has threads, and jobs are forked from a process that has none.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SECONDS_TO_SAVE = 60
_SECONDS_BETWEEN_LOOKS = 0.1


def work(command: list[str], log: str) -> int:
    """Run a command; return its exit code.

    Args:
        command: of ``grulab work``, without the interpreter, which is that of the worker.
        log: file to which the output is appended.

    Raises:
        RuntimeError: if it was killed, so that Ray starts the task again.
    """
    with Path(log).open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "grulab", *command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        # Ray cancels a task with a KeyboardInterrupt that ends no system call, such as a wait for a process.
        while (code := process.poll()) is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if code < 0:
            raise RuntimeError(f"grulab work was killed by {signal.Signals(-code).name}")
        return code
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read(path: str) -> str | None:
    """Return the text of a file, or None: what a node sees of a folder."""
    try:
        return Path(path).read_text()
    except OSError:
        return None
