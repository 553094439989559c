"""The batch script of a sweep on SLURM, and what the sweep's folder says of its arrays."""

import json
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from grulab.cluster.logs import ranges
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.sweep.slurm_settings import SlurmSettings
from grulab.system.atomic import write_atomically
from grulab.system.printable import printable
from grulab.system.regular_file import MAX_JSON_BYTES, read_regular

# What sbatch would read as a quote, an escape or a pattern in the path of the log.
_ODD_CHARACTERS = '"\\%'


_MARK = "# Written by grulab's SLURM launcher, and anew for each array."
_MAX_SCRIPT_BYTES = 2**20


class _Array(TypedDict):
    id: Annotated[str, Field(pattern=r"^\d{1,20}$")]
    tasks: Annotated[int, Field(ge=1)]
    # In sweep.json at that time.
    jobs: Annotated[int, Field(ge=1)]
    submitted: str


class Submissions(TypedDict):
    """The content of slurm.json.

    Attributes:
        job_name: under which SLURM has the arrays of this sweep; it stands here before the first is submitted, so
            that an array is found also if the command that submitted it was killed at once.
        arrays: those that were submitted.
    """

    job_name: Annotated[str, Field(pattern=r"^grulab-[A-Za-z0-9_.-]{1,150}$")]
    arrays: list[_Array]


_SCHEMA: TypeAdapter[Submissions] = TypeAdapter(Submissions)


def read_submissions(sweep_dir: Path, name: str) -> Submissions:
    """Return what slurm.json says; if there is none, write one with a new job name.

    Args:
        sweep_dir: the sweep's folder.
        name: of the sweep.

    Raises:
        ConfigError: if the file is odd.
    """
    path = sweep_dir / paths.SLURM
    try:
        return _SCHEMA.validate_python(json.loads(read_regular(path, MAX_JSON_BYTES)), strict=True)
    except FileNotFoundError:
        new: Submissions = {"job_name": f"grulab-{name}-{secrets.token_hex(3)}", "arrays": []}
        write_submissions(sweep_dir, new)
        return new
    except (OSError, ValueError, RecursionError) as error:
        cause = f"{error.error_count()} entries are odd" if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"{path}: cannot be read ({printable(cause.splitlines()[0])}); see with squeue --me that nothing of this "
            "sweep is queued, and remove the file"
        ) from None


def write_submissions(sweep_dir: Path, submissions: Submissions) -> None:
    """Write slurm.json."""
    write_atomically(sweep_dir / paths.SLURM, json.dumps(submissions, indent=2) + "\n")


def add_array(sweep_dir: Path, submissions: Submissions, number: str, tasks: int, jobs: int) -> None:
    """Note the number of an array that was submitted, of its tasks, and of the sweep's jobs."""
    submitted = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    submissions["arrays"].append({"id": number, "tasks": tasks, "jobs": jobs, "submitted": submitted})
    write_submissions(sweep_dir, submissions)


def refuse_odd_path(folder: Path) -> None:
    """Check that a path can stand in a batch script: that of a sweep, or the working directory.

    Raises:
        ConfigError: if it cannot.
    """
    path = str(folder.absolute())
    if odd := next((character for character in _ODD_CHARACTERS if character in path), None):
        raise ConfigError(f"hydra/launcher=slurm: {path}: sbatch has a use of its own for {odd}; use another folder")


def write_script(
    sweep_dir: Path, job_name: str, settings: SlurmSettings, slices: Sequence[int], count: int, words: Sequence[str]
) -> tuple[Path, list[str]]:
    """Write the batch script of an array, one task for each slice.

    Returns:
        Its path, and its options: in the environment, sbatch would find others that count more than a script's.

    Args:
        sweep_dir: the sweep's folder.
        job_name: under which SLURM has it.
        settings: of the launcher.
        slices: those that have something to do.
        count: the number of slices of the whole sweep.
        words: further arguments of ``grulab work``.
    """
    folder = sweep_dir.absolute()
    at_once = f"%{settings.at_once}" if settings.at_once else ""
    options: dict[str, Any] = {
        "job-name": job_name,
        "array": ranges(slices) + at_once,
        "partition": settings.partition,
        "account": settings.account,
        "time": settings.time,
        "ntasks": 1,
        "cpus-per-task": settings.cpus_per_task,
        "gpus-per-task": settings.gpus_per_task,
        "mem": settings.mem,
        "constraint": settings.constraint,
        "chdir": Path.cwd(),
        "output": folder / paths.SLURM_LOGS / "%A_%a.log",
        "open-mode": "append",
        "signal": f"B:USR1@{settings.seconds_of_warning()}",
    }
    given = {name: value for name, value in options.items() if value is not None}
    work = [sys.executable, "-P", "-m", "grulab", "work", str(folder)]
    lines = [
        "#!/bin/bash",
        f"# Task I of this array runs the jobs I, I+{count}, I+{2 * count} ... of the sweep in this folder that are "
        "not done.",
        _MARK,
        *(f'#SBATCH --{name}="{v}"' if isinstance(v, Path) else f"#SBATCH --{name}={v}" for name, v in given.items()),
        "#SBATCH --requeue",
        *(f"#SBATCH {option}" for option in settings.sbatch),
        # A node without the module stops here, and says so in its log.
        *(["set -e", *settings.setup, "set +e"] if settings.setup else []),
        # Python in the place of the shell, so that signals to the batch process reach it.
        f'exec {shlex.join(work)} --slice "$SLURM_ARRAY_TASK_ID/{count}" --requeue {shlex.join(words)}'.rstrip(),
    ]
    path = sweep_dir / paths.SLURM_SCRIPT
    _refuse_foreign_script(path)
    (sweep_dir / paths.SLURM_LOGS).mkdir(exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")
    return path, [*(f"--{name}={value}" for name, value in given.items()), "--requeue", *settings.sbatch]


def _refuse_foreign_script(path: Path) -> None:
    """Check that a batch script is this launcher's own, which may be replaced.

    Raises:
        ConfigError: if it is not.
    """
    try:
        text = read_regular(path, _MAX_SCRIPT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); move it away") from None
    if _MARK not in text.splitlines():
        raise ConfigError(f"{path}: was not written by grulab, which would replace it; move it away")
