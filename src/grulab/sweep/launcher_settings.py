"""The settings of the launcher: types and ranges. The values are in conf/hydra/launcher/local.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from grulab.config.parse import parse_section
from grulab.field_types import STRICT, Count, Integer, Number

TARGET = "hydra_plugins.grulab.LocalLauncher"
DEFAULT_TASKS = 8


def _number_or_auto(value: Any) -> Any:
    """Return None for auto."""
    if value is None:
        raise ValueError("jobs_per_device=null: must be a whole number, or auto")
    return None if value == "auto" else value


@dataclass(frozen=True, config=STRICT)
class SliceSettings:
    """How jobs run on a machine, whichever launcher the sweep has; conf/hydra/launcher/ explains each field."""

    # None: as many as the device can take.
    jobs_per_device: Annotated[Annotated[Count, Field(le=1000)] | None, BeforeValidator(_number_or_auto)]
    on_failure: Literal["continue", "stop"]
    retries: Annotated[Integer, Field(ge=0, le=1000)]
    time_limit: Annotated[Number, Field(gt=0)] | None
    reuse: bool


@dataclass(frozen=True, config=STRICT)
class TaskSettings(SliceSettings):
    """How the jobs of a sweep are divided among the tasks of a cluster."""

    tasks: Annotated[Count, Field(le=100_000)] | None
    jobs_per_task: Count | None

    @model_validator(mode="after")
    def _tasks_or_jobs(self) -> Self:
        if self.tasks is not None and self.jobs_per_task is not None:
            raise ValueError(f"jobs_per_task={self.jobs_per_task}: does not go with tasks={self.tasks}; write one")
        return self

    def tasks_for(self, jobs: int, otherwise: int = DEFAULT_TASKS) -> int:
        """Return the number of tasks that share so many jobs: ``otherwise``, if nothing is said."""
        tasks = -(-jobs // self.jobs_per_task) if self.jobs_per_task else self.tasks or otherwise
        return min(tasks, jobs)


@dataclass(frozen=True, config=STRICT)
class LocalSettings(SliceSettings):
    """How the jobs of a sweep run on this machine; conf/hydra/launcher/local.yaml explains each field."""

    cores: Count | None
    devices: Annotated[list[Annotated[Integer, Field(ge=0)]], Field(min_length=1)] | None


_SCHEMA: TypeAdapter[LocalSettings] = TypeAdapter(LocalSettings)
# As in conf/hydra/launcher/local.yaml, for the launchers that do not have them.
_DEFAULTS: dict[str, Any] = {
    "cores": None, "devices": None, "jobs_per_device": "auto", "on_failure": "continue", "retries": 0,
    "time_limit": None, "reuse": True,
}  # fmt: skip


def parse_settings(values: Mapping[str, Any]) -> LocalSettings:
    """Return the validated settings.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    return parse_section(_SCHEMA, values, "hydra.launcher")


def settings_of_slice(values: Mapping[str, Any]) -> LocalSettings:
    """Return how a slice of a sweep runs its jobs on one machine, whichever launcher the sweep has.

    Raises:
        ConfigError: as :func:`parse_settings`.
    """
    return parse_settings(_DEFAULTS | {key: value for key, value in values.items() if key in _DEFAULTS})
