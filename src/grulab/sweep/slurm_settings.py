"""The settings of the SLURM launcher: types and ranges. The values are in conf/hydra/launcher/slurm.yaml."""

import re
import shutil
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter
from pydantic.dataclasses import dataclass

from grulab.config.parse import parse_section
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.field_types import STRICT, Count, Flag
from grulab.sweep.launcher_settings import DEFAULT_TASKS, TaskSettings
from grulab.system.printable import printable

TARGET = "hydra_plugins.grulab.SlurmLauncher"
# Commands and options that a batch script takes as they are.
SUBMISSION_KEYS = ("setup", "sbatch")
_TIME = re.compile(r"\d{1,6}|\d{1,6}:\d\d(:\d\d)?|\d{1,4}-\d\d?(:\d\d(:\d\d)?)?", re.ASCII)
# With others the launcher would not find its tasks again.
_OWN_OPTIONS = (
    r"-[JaMDoe]|--(job-name|array|clusters?|chdir|output|open-mode|signal|(no-)?requeue|parsable|wrap|wait)\b"
)


def _time(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if value is None or (isinstance(text, str) and _TIME.fullmatch(text) and _seconds(text) > 0):
        return text
    raise ValueError(
        f"time={shown_value(value)}: write minutes, 'minutes:seconds', 'hours:minutes:seconds' or 'days-hours'"
    )


def _gpus(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def _word(key: str, pattern: str, expected: str) -> BeforeValidator:
    """Check what stands on a line of the batch script that sbatch reads: it splits words and takes quotes away."""

    def check(value: Any) -> Any:
        if value is None or (isinstance(value, str) and re.fullmatch(pattern, value)):
            return value
        raise ValueError(f"{key}={shown_value(value)}: must be {expected}")

    return BeforeValidator(check)


def _name(key: str) -> BeforeValidator:
    return _word(
        key, r"[A-Za-z0-9_.,:+*@%/&|()\[\]!=][A-Za-z0-9_.,:+*@%/&|()\[\]!=-]{0,199}", "a name without blanks"
    )


def _one_line(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _lines(key: str, is_option: bool) -> AfterValidator:
    def check(values: list[str]) -> list[str]:
        for value in values:
            if not value.strip() or value != printable(value):
                raise ValueError(f"{key}={shown_value(values)}: a line is empty, or has a control character")
            if is_option and not value.startswith("-"):
                raise ValueError(f"{key}={shown_value(values)}: an option of sbatch begins with -")
            if is_option and re.match(_OWN_OPTIONS, value):
                raise ValueError(f"{key}={shown_value(values)}: {value} is set by the launcher itself; leave it out")
        return values

    return AfterValidator(check)


@dataclass(frozen=True, config=STRICT)
class SlurmSettings(TaskSettings):
    """How a sweep becomes an array of SLURM; conf/hydra/launcher/slurm.yaml explains each field."""

    partition: Annotated[str | None, _name("partition")]
    account: Annotated[str | None, _name("account")]
    time: Annotated[str | None, BeforeValidator(_time)]
    cpus_per_task: Count
    gpus_per_task: Annotated[str | None, _name("gpus_per_task"), BeforeValidator(_gpus)]
    mem: Annotated[str | None, _word("mem", r"[0-9]{1,9}[KMGT]?", "an amount such as 8G")]
    constraint: Annotated[str | None, _name("constraint")]
    at_once: Count | None
    setup: Annotated[list[str], _lines("setup", is_option=False), BeforeValidator(_one_line)]
    sbatch: Annotated[list[str], _lines("sbatch", is_option=True), BeforeValidator(_one_line)]
    wait: Flag

    def in_words(self, jobs: int) -> str:
        """Return what an array of so many jobs is."""
        tasks = self.tasks_for(jobs)
        gpus = f" and {self.gpus_per_task} GPUs" if self.gpus_per_task else ""
        time = f" for {self.time}" if self.time else ""
        return f"SLURM: an array of {tasks} tasks, each with {self.cpus_per_task} CPUs{gpus}{time}, for {jobs} jobs"

    def jobs_at_once(self, threads: int) -> int:
        """Return the number of jobs, of so many threads, that run at the same time if all tasks do."""
        tasks = self.tasks or DEFAULT_TASKS
        return min(tasks, self.at_once or tasks) * max(1, self.cpus_per_task // threads)

    def seconds_of_warning(self) -> int:
        """Return the seconds between SIGUSR1 and the end of a task: a minute, or less for a short task."""
        return 60 if self.time is None else min(60, _seconds(self.time) // 3)


def _seconds(text: str) -> int:
    """Return the seconds of a time as SLURM writes it; a number alone is minutes."""
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], [*parts, 0][1]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


_SCHEMA: TypeAdapter[SlurmSettings] = TypeAdapter(SlurmSettings)


def parse_settings(values: Mapping[str, Any]) -> SlurmSettings:
    """Return the validated settings.

    Raises:
        ConfigError: with one line for each mistake, or if this machine has no sbatch.
    """
    settings = parse_section(_SCHEMA, values, "hydra.launcher")
    if shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm: this machine has no sbatch; give the command on a login node")
    return settings
