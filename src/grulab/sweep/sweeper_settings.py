"""The settings of the sweeper: types and ranges. The values are in conf/hydra/sweeper/grid.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter
from pydantic.dataclasses import dataclass

from grulab.config.overrides import written
from grulab.config.parse import parse_section
from grulab.config.validation_messages import shown_value
from grulab.field_types import STRICT, Count, Plain

TARGET = "hydra_plugins.grulab.GridSweeper"
# For Hydra's own sweeper, which has no such key.
_MAX_JOBS = 10_000


def _lists_of_keys(value: Any) -> Any:
    """Return zipped keys as a list of lists."""
    if value is None:
        return None
    groups = [value] if isinstance(value, list) and all(isinstance(key, str) for key in value) else value
    if not isinstance(groups, list) or not all(_is_list_of_keys(group) for group in groups):
        raise ValueError(f"zip={shown_value(value)}: must be a list of keys, or of such lists")
    return groups


def _is_list_of_keys(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(key, str) for key in value)


@dataclass(frozen=True, config=STRICT)
class GridSettings:
    """How a sweep's values make jobs; conf/hydra/sweeper/grid.yaml explains each field."""

    max_batch_size: Count | None
    max_jobs: Count
    params: dict[str, Plain] | None
    zip: Annotated[list[list[str]] | None, BeforeValidator(_lists_of_keys)]

    @property
    def swept(self) -> list[str]:
        """The values of ``params`` as overrides."""
        return [f"{key}={written(values)}" for key, values in (self.params or {}).items()]


_SCHEMA: TypeAdapter[GridSettings] = TypeAdapter(GridSettings)


def parse_settings(values: Mapping[str, Any]) -> GridSettings:
    """Return the validated settings of GridSweeper, or of Hydra's own sweeper.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    defaults = {} if values.get("_target_") == TARGET else {"max_jobs": _MAX_JOBS, "zip": None}
    return parse_section(_SCHEMA, defaults | dict(values), "hydra.sweeper")
