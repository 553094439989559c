"""The memory of a process."""

from contextlib import suppress
from pathlib import Path


def anonymous_kibibytes(process: int | str = "self") -> int | None:
    """Return the memory of a process without the pages of files, which are mapped as they are needed (Linux only).

    None if the process has ended, or the system does not tell.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return None
