"""What Linux tells of a process in /proc/<pid>/status."""

from contextlib import suppress
from pathlib import Path


def proc_status(process: int | str = "self") -> dict[str, str]:
    """Return the fields of a process's status; {} if it has ended, or on other systems."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def anonymous_kibibytes(process: int | str = "self") -> int | None:
    """Return the memory of a process without the pages of files, which are mapped as needed; None if unknown."""
    size = proc_status(process).get("RssAnon")
    return int(size.split()[0]) if size else None


def thread_count() -> int:
    """Return the number of threads of this process, those of native libraries included; 0 if unknown."""
    return int(proc_status().get("Threads", 0))
