"""End the processes of a Ray that a command has started, when the command ends for any reason.

``python ray_guard.py FOLDER`` waits until its standard input closes, which the kernel does when the command has
ended, also by SIGKILL. Then it kills what has the mark in its environment, and removes the folder. Ray ends most of
its processes itself, but after SIGKILL of a driver two agents stayed (Ray 2.60).
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# In the environment of all processes of that Ray; its value is the folder.
MARK = "GRULAB_RAY"
_SECONDS_TO_END = 2.0
_SECONDS_TO_DIE = 10.0


def _members(folder: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            is_member = f"{MARK}={folder}".encode() in path.read_bytes().split(b"\0")
            is_zombie = (path.parent / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if is_member and not is_zombie:
                found.append(int(path.parent.name))
    return found


def _main(folder: str) -> None:
    sys.stdin.buffer.read()
    began = time.monotonic()
    while (members := _members(folder)) and time.monotonic() - began < _SECONDS_TO_DIE:
        if time.monotonic() - began > _SECONDS_TO_END:
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # Ctrl-C in the terminal is for the command.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _main(sys.argv[1])
