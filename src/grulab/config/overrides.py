"""Parse and classify overrides, the ``key=value`` arguments of the command line."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType

from grulab.config_error import ConfigError


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's parser.

    Raises:
        ConfigError: if an override has no key.
    """
    parsed = [_parse(line) for line in overrides]
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"{override.input_line}: has no key; write key=value")
    return parsed


def split_override(line: str) -> tuple[str, str]:
    """Return an override's key and value as text: ``+data@pkg=x`` has the key ``data`` and the value ``x``."""
    key, _, value = line.lstrip("+~").partition("=")
    return key.partition("@")[0], value


def key_of(line: str) -> str:
    """Return the key of an override; for a flag, return the flag."""
    return split_override(line)[0]


def quoted(value: str) -> str:
    """Quote a value so that Hydra reads it literally, except ``${``; see :func:`refuse_reference`."""
    # Hydra takes a backslash literally, except before a quote, the closing one included.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"


def refuse_reference(key: str, folder: Path) -> None:
    """Check that Hydra will not take a part of a folder's path for a reference to another key.

    Raises:
        ConfigError: if it would.
    """
    if "${" in str(folder.absolute()):
        raise ConfigError(f"{key}={folder}: Hydra takes the ${{ in its path for a reference; rename the folder")


def written(value: Any) -> str:
    """Return a plain value as an override has it: ``null`` for None, ``true`` for True."""
    constants = {None: "null", True: "true", False: "false"}
    return constants[value] if value is None or isinstance(value, bool) else str(value)


def structure_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that do more than set a value; jobs that agree in them share one composition."""
    return tuple(str(override.input_line) for override in parse_overrides(overrides) if not sets_value(override))


def is_about_hydra(line: str) -> bool:
    """Return whether an override changes Hydra's own configuration, and not the run's."""
    # key@package=choice puts a group's choice there.
    key, _, package = line.lstrip("+~").partition("=")[0].partition("@")
    return any(re.split(r"[./:]", name)[0] == "hydra" for name in (key, package))


def sets_value(override: Override) -> bool:
    """Return whether the override changes an existing value, and not the structure of the configuration."""
    is_value = "." in override.key_or_group or override.key_or_group in ("name", "seed")
    if is_about_hydra(override.key_or_group):
        return False
    return override.type == OverrideType.CHANGE and override.package is None and is_value


@lru_cache(maxsize=100_000)
def _parse(line: str) -> Override:
    """Parse an override; cached, because parsing takes a millisecond and the jobs of a sweep share few overrides."""
    if number := re.fullmatch(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=(0|-?[1-9]\d{0,17})", line, re.ASCII):
        # Such as a seed, of which there may be thousands.
        return Override(OverrideType.CHANGE, number[1], ValueType.ELEMENT, int(number[2]), input_line=line)
    return _parser().parse_overrides([line])[0]


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
