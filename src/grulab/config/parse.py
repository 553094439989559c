"""Convert plain values to a checked configuration, or to an error with a line for each mistake."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from grulab.config.schema import Config
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.config.validation_messages import dotted, remedy, shown_value
from grulab.config_error import ConfigError
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import find_task, task_names

T = TypeVar("T")
_SCHEMA: TypeAdapter[Config] = TypeAdapter(Config)
_SECTIONS = [field.name for field in dataclasses.fields(Config)]


def parse(values: Mapping[str, Any]) -> Config:
    """Convert nested plain values to a checked :class:`Config`, without reading any data.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    lines: list[tuple[int, str]] = []
    data = None
    try:
        if "data" in values:
            data = _parse_data(values["data"], values)
    except ConfigError as error:
        lines += [(_SECTIONS.index("data"), line) for line in str(error).splitlines()]
    try:
        config = _SCHEMA.validate_python({**values, "data": data} if "data" in values else values)
    except ValidationError as error:
        mistakes: list[dict[str, Any]] = [dict(mistake) for mistake in error.errors()]
        # If the section data has mistakes, they are in the list already.
        left = [mistake for mistake in mistakes if mistake["loc"][0] != "data" or data or "data" not in values]
        if data is None and "data" in values:
            # By default the name is that of the task.
            task = values["data"].get("task") if isinstance(values["data"], Mapping) else None
            left = [mistake for mistake in left if mistake["loc"] != ("name",) or mistake["input"] != task]
        lines += [(_position(mistake), _explain(mistake, values)) for mistake in left]
    if lines:
        lines.sort(key=lambda line: line[0])
        raise ConfigError("\n".join(dict.fromkeys(line for _, line in lines)))
    return config


def located(config: Config) -> Config:
    """Return the configuration with what the file of its sequences adds to it, such as the hash of their content.

    Raises:
        ConfigError: naming what is odd in the file.
    """
    return dataclasses.replace(config, data=config.data.located())


def parse_section(schema: TypeAdapter[T], values: Mapping[str, Any], section: str) -> T:
    """Convert a section of Hydra's own configuration, which names its class in ``_target_``.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    try:
        return schema.validate_python({key: value for key, value in values.items() if key != "_target_"})
    except ValidationError as error:
        lines = [_explain_setting(dict(mistake), section) for mistake in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain_setting(mistake: Mapping[str, Any], section: str) -> str:
    if mistake["type"] == "value_error":
        return f"{section}.{mistake['ctx']['error']}"
    if mistake["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{section}.{dotted(mistake['loc'])}={shown_value(mistake['input'])}: no such key; leave it out"
    return f"{section}.{dotted(mistake['loc'])}={shown_value(mistake['input'])}: {remedy(mistake)}"


def _parse_data(section: Any, values: Mapping[str, Any]) -> DataConfig:
    """Return the section ``data``, checked with the schema of its task.

    Raises:
        ConfigError: with a line for each mistake.
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"data={shown_value(section)}: must be a group of keys")
    if "task" not in section:
        raise ConfigError("data.task: has no value; give it the name of a task")
    if not isinstance(section["task"], str):
        raise ConfigError(f"data.task={shown_value(section['task'])}: choose from {', '.join(task_names())}")
    schema = _data_schema(section["task"])
    try:
        data = schema.validate_python(section)
    except ValidationError as error:
        mistakes = [{**mistake, "loc": ("data", *mistake["loc"])} for mistake in error.errors()]
        raise ConfigError("\n".join(_explain(mistake, values) for mistake in mistakes)) from None
    for key in (field.name for field in dataclasses.fields(data)):
        if not _is_plain(value := getattr(data, key)):
            raise ConfigError(
                f"data.{key}={value!r}: its schema makes it a {type(value).__name__}, which JSON and checkpoints do "
                "not keep; the keys of a task hold numbers, text, true, false, null, or lists of these"
            )
    return data


def _is_plain(value: Any) -> bool:
    """Return whether JSON, a checkpoint and a line of sweep.json give a value back as it is."""
    return (
        value is None
        or type(value) in (bool, int, float, str)
        or (type(value) is list and all(map(_is_plain, value)))
    )


@cache
def _data_schema(task: str) -> TypeAdapter[DataConfig]:
    try:
        return TypeAdapter(find_task(task).config_class)
    except PydanticUserError as error:
        raise ConfigError(f"data.task={task}: its configuration is no schema: {str(error).splitlines()[0]}") from None


def _position(mistake: Mapping[str, Any]) -> int:
    section = mistake["loc"][0]
    return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)


def _explain(mistake: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    location = mistake["loc"]
    key, value, kind = dotted(location), mistake["input"], mistake["type"]
    if kind == "value_error":
        # The messages of the schemas' own validators begin with the key, relative to its section.
        return f"{location[0]}.{mistake['ctx']['error']}"
    if key in ("experiment", "debug") and isinstance(value, Mapping):
        return f"{key}: has keys of its own; begin the file that you chose for it with # @package _global_"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        data = values.get("data")
        task = data.get("task") if isinstance(data, Mapping) else None
        return unknown_key(f"{key}={shown_value(value)}", valid_keys(task))
    if kind == "missing":
        return f"{key}: has no value; give it one"
    return f"{key}={shown_value(value)}: {remedy(mistake)}"
