"""End the processes of a Ray that a command has started, when the command ends for any reason.

``python ray_guard.py FOLDER`` waits until its standard input closes, which the kernel does when the command has
ended, also by SIGKILL. Then it kills what writes its output to a file in the folder, as all processes of that Ray do,
and removes the folder. Ray ends most of its processes itself, but after SIGKILL of a driver two agents stayed for
half a minute (Ray 2.60). A variable of the environment would not tell them: they set their titles, which overwrites
what /proc shows of it, and where a variable lies there is different each time.
"""

import os
import shutil
import signal
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

_SECONDS_TO_END = 2.0
_SECONDS_TO_DIE = 10.0


def _members(folder: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process of another user, or one that ends meanwhile.
        with suppress(OSError):
            if any(_is_output(descriptor, folder) for descriptor in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


def _is_output(descriptor: Path, folder: str) -> bool:
    try:
        # A person may read it, or edit it beside its swap file; the drivers of this Ray write logs of other names.
        file, is_for_writing = descriptor.readlink(), descriptor.lstat().st_mode & stat.S_IWUSR
        return bool(is_for_writing) and file.suffix == ".out" and file.is_relative_to(folder)
    except OSError:
        # It was closed meanwhile.
        return False


def _main(folder: str) -> None:
    # /proc names files by the paths that no link is in, and /tmp may be one.
    folder = os.path.realpath(folder)
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
