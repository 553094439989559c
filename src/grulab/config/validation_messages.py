"""The messages for values that a schema rejects."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from grulab.system.printable import printable

_MAX_CHARACTERS = 300
# Python refuses to write an integer of more than 4300 digits.
_MAX_BITS = 1000


def remedy(mistake: Mapping[str, Any]) -> str:
    """Return the remedy for one of pydantic's errors, as the end of a message."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    match kind:
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be over {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "less_than":
            return f"must be under {context['lt']}"
        case "int_type" | "int_parsing" | "int_from_float":
            value = mistake["input"]
            if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
                # Hydra reads 1e6 as a float.
                return f"must be a whole number; write {int(value):_}"
            return "must be a whole number"
        case "float_type" | "float_parsing":
            return "must be a number"
        case "finite_number":
            return "must be a finite number"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "dataclass_type" | "model_attributes_type":
            return "must be a group of keys"
        case "dict_type":
            return "must be a group of keys, such as {seed: '0,1'}"
        case "list_type":
            return "must be a list, such as [1,2]"
        case "too_short":
            return f"needs at least {context['min_length']} values"
        case "string_type":
            return "must be text"
        case "literal_error":
            return f"choose from {context['expected'].replace(chr(39), '')}"
        case "string_pattern_mismatch":
            return "may hold letters, digits, '_', '.' and '-', and starts with a letter or digit"
        case "string_too_long":
            return f"has more than {context['max_length']} characters"
        case _:
            return str(mistake["msg"])


def dotted(location: Sequence[str | int]) -> str:
    """Return the location of a value as a dotted key: ``data.frequencies[1]``."""
    return printable(re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, location))))


def shown_value(value: Any) -> str:
    """Return a value as text in the syntax of the command line, in one line."""
    if isinstance(value, Mapping):
        return "{...}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return "(an integer of more than 300 digits)"
    text = str(value)
    return printable(text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}...")
