"""The settings of the sweepers: types and ranges. The values are in conf/hydra/sweeper/*.yaml."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from grulab.config.overrides import written
from grulab.config.parse import parse_section
from grulab.config.validation_messages import shown_value
from grulab.field_types import STRICT, Count, Integer, Number, Plain, Seed

GRID, RACE, SEARCH = (f"hydra_plugins.grulab.{name}Sweeper" for name in ("Grid", "Race", "Optuna"))
DEFAULT_MAX_JOBS = 10_000
# For Hydra's own sweeper, which has no such keys.
_OF_BASIC: dict[str, Any] = {"max_jobs": DEFAULT_MAX_JOBS, "zip": None, "tune": [], "rungs": None, "keep": 0.33}


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
class _Settings:
    """What all sweepers have."""

    params: dict[str, Plain] | None
    rungs: Annotated[list[Count], Field(min_length=2)] | None
    keep: Annotated[Number, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.rungs or [])):
            raise ValueError(f"rungs={shown_value(self.rungs)}: must rise from one number of epochs to the next")
        return self

    @property
    def swept(self) -> list[str]:
        """The values of ``params`` as overrides."""
        return [f"{key}={written(values)}" for key, values in (self.params or {}).items()]


@dataclass(frozen=True, config=STRICT)
class GridSettings(_Settings):
    """How a sweep's values make jobs; conf/hydra/sweeper/grid.yaml explains each field."""

    max_batch_size: Count | None
    max_jobs: Count
    zip: Annotated[list[list[str]] | None, BeforeValidator(_lists_of_keys)]
    tune: list[str]


@dataclass(frozen=True, config=STRICT)
class RaceSettings(GridSettings):
    """How a race makes jobs; conf/hydra/sweeper/race.yaml explains each field."""

    indifference: Annotated[Number, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class SearchSettings(_Settings):
    """How a search makes jobs; conf/hydra/sweeper/optuna.yaml explains each field."""

    n_trials: Annotated[Count, Field(le=100_000)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    confirm: Annotated[Integer, Field(ge=0, le=1000)]
    sampler_seed: Seed

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={shown_value(self.seeds)}: names a seed twice")
        return self


_SEARCH: TypeAdapter[SearchSettings] = TypeAdapter(SearchSettings)
_GRID: TypeAdapter[GridSettings] = TypeAdapter(GridSettings)
_RACE: TypeAdapter[RaceSettings] = TypeAdapter(RaceSettings)


def parse_settings(values: Mapping[str, Any]) -> GridSettings:
    """Return the validated settings of one of grulab's sweepers, or of Hydra's own.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    target = values.get("_target_")
    if target == RACE:
        return parse_section(_RACE, values, "hydra.sweeper")
    return parse_section(_GRID, ({} if target == GRID else _OF_BASIC) | dict(values), "hydra.sweeper")


def parse_search_settings(values: Mapping[str, Any]) -> SearchSettings:
    """Return the validated settings of a search.

    Raises:
        ConfigError: as :func:`parse_settings`.
    """
    return parse_section(_SEARCH, values, "hydra.sweeper")
