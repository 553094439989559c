"""What the logs of tasks say at their end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.system.printable import printable
from grulab.system.regular_file import open_regular, refuse_odd_kinds

_MAX_BYTES = 2**30
_LAST_BYTES = 4096
_MAX_LINE = 300


def last_words(logs: Mapping[int, Path]) -> list[str]:
    """Return the last line of each log, after the number of its task; tasks with the same one share a line."""
    said: dict[str, list[int]] = {}
    for index, path in logs.items():
        said.setdefault(_last_line(path), []).append(index)
    return [f"{ranges(tasks)}: {line}" for line, tasks in said.items()]


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as SLURM writes them: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _last_line(path: Path) -> str:
    try:
        refuse_odd_kinds([path], [path.parent])
        with open_regular(path, _MAX_BYTES) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return f"has left no {display_path(path)}; does its node see this folder?"
    except (OSError, ConfigError) as error:
        return printable(str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1][:_MAX_LINE]) if lines else f"{display_path(path)} is empty"
