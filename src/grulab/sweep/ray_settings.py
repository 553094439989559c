"""The settings of the Ray launcher: types and ranges. The values are in conf/hydra/launcher/ray.yaml."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from grulab.config.parse import parse_section
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.field_types import STRICT, Count, Integer, Number
from grulab.sweep.launcher_settings import TaskSettings
from grulab.system.printable import printable

TARGET = "hydra_plugins.grulab.RayLauncher"


def _address(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value and value == printable(value) and " " not in value):
        return value
    raise ValueError(f"address={shown_value(value)}: must be auto, host:port, or null for a Ray of its own")


@dataclass(frozen=True, config=STRICT)
class RaySettings(TaskSettings):
    """How a sweep becomes tasks of Ray; conf/hydra/launcher/ray.yaml explains each field."""

    address: Annotated[str | None, BeforeValidator(_address)]
    num_cpus: Count
    num_gpus: Annotated[Number, Field(gt=0)] | None
    max_retries: Annotated[Integer, Field(ge=0, le=1000)]

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.num_gpus is not None and self.num_gpus > 1 and not float(self.num_gpus).is_integer():
            raise ValueError(f"num_gpus={self.num_gpus}: must be a whole number, or a share of one device")
        return self


_SCHEMA: TypeAdapter[RaySettings] = TypeAdapter(RaySettings)


def parse_settings(values: Mapping[str, Any]) -> RaySettings:
    """Return the validated settings.

    Raises:
        ConfigError: with one line for each mistake, or if Ray is not installed.
    """
    settings = parse_section(_SCHEMA, values, "hydra.launcher")
    if find_spec("ray") is None:
        raise ConfigError("hydra/launcher=ray: needs Ray: pip install 'grulab[ray]'")
    return settings
