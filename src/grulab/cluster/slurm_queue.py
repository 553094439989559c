"""What SLURM is asked and told: sbatch, squeue and scontrol."""

import getpass
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grulab.config_error import ConfigError
from grulab.system.printable import printable

_SECONDS = 30
_MAX_REASON = 300


@dataclass(frozen=True)
class QueuedTask:
    """A task of an array that is not over.

    Attributes:
        array: the number of its array.
        state: such as PENDING or RUNNING.
        reason: why it waits, such as Priority.
    """

    array: str
    state: str
    reason: str


class QueueError(RuntimeError):
    """A command of SLURM has failed; the message is its reason, in one line."""


def submit(script: Path, options: Sequence[str]) -> str:
    """Submit a batch script; return the number of its array.

    Args:
        script: the batch script.
        options: those that count more than what the environment sets.

    Raises:
        QueueError: with sbatch's reason.
    """
    # "17", or "17;cluster" where there are several.
    number = _run("sbatch", "--parsable", *options, "--", str(script.absolute())).strip().partition(";")[0]
    if not re.fullmatch(r"[0-9]{1,20}", number):
        raise QueueError(f"has printed {printable(number[:100])!r} and no number")
    return number


def tasks_of(job_name: str) -> list[QueuedTask]:
    """Return the tasks of this user's jobs with a name that are queued, running or about to end.

    Raises:
        QueueError: if squeue cannot tell now.
    """
    # %r may hold blanks. --me is newer than some clusters.
    asked = [f"--user={getpass.getuser()}", f"--name={job_name}", "--noheader", "--array", "--format=%F %T %r"]
    lines = _run("squeue", *asked).splitlines()
    rows = [printable(line).split(maxsplit=2) for line in lines if line.strip()]
    return [QueuedTask(*[*row, "", ""][:3]) for row in rows]


def in_words(tasks: list[QueuedTask]) -> str:
    """Return how many tasks are in which state, and why those wait that do."""
    reasons = {task: task.reason for task in tasks if task.state == "PENDING" and task.reason != "None"}
    names = [task.state.lower() + (f" ({reasons[task]})" if task in reasons else "") for task in tasks]
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items())


def requeue_after(signum: int) -> None:
    """Ask SLURM to queue this task again after SIGUSR1, which SLURM sends before the time of a task is over.

    After SIGTERM nothing is asked: SLURM requeues what it preempts itself, and what was cancelled stays so.
    """
    if signum != signal.SIGUSR1:
        return
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    # The number of an array's last task is that of the array, and would name all of its tasks.
    name = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    print(f"asks SLURM to start {name} again", flush=True)
    try:
        _run("scontrol", "requeue", name)
    except QueueError as error:
        print(f"scontrol requeue: {error}", flush=True)


def _run(*command: str) -> str:
    # What grulab and the job around it have set is not for the tasks.
    foreign = {name for name in os.environ if name.startswith(("SLURM_", "SQUEUE_"))} - {"SLURM_CONF"}
    foreign |= {"HYDRA_FULL_ERROR"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            # Ctrl-C in the terminal is not for it, and what it has started ends with it.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ConfigError(f"hydra/launcher=slurm: this machine has no {command[0]}") from None
    try:
        output, errors = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command[0]} has said nothing for {_SECONDS} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("Try ")]
        last = printable((lines or [f"exit code {process.returncode}"])[-1])[:_MAX_REASON]
        raise QueueError(re.sub(r"^(/\S*/)?\w+: (error: )?", "", last))
    return output
