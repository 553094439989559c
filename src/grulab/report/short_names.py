"""Short names for runs in TensorBoard: what differs between them, and no more."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from grulab.config.validation_messages import shown_value

_ODD = re.compile(r"[^A-Za-z0-9_.+-]+")
_LONGEST = 60
_LETTERS = 5


def short_names(values: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """Return a name for each run, such as ``hs16 nl1 bidir s0``, and what the abbreviations stand for.

    A key that is false is left out, and the seed comes last.

    Args:
        values: for each run the keys that differ between the runs, with their values.
    """
    keys = sorted(dict.fromkeys(key for run in values for key in run), key=lambda key: key == "seed")
    short = {key: _abbreviated(key) for key in keys}
    counts = Counter(short.values())
    short = {key: text if counts[text] == 1 else _last(key) for key, text in short.items()}
    names = []
    used: Counter[str] = Counter()
    for run in values:
        words = [_word(short[key], run[key]) for key in keys if key in run]
        name = " ".join(filter(None, words))[:_LONGEST] or "run"
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name} {used[name]}")
    return names, {text: key for key, text in short.items()}


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _abbreviated(key: str) -> str:
    """Return the initials of a key of several words, or the first letters of one."""
    words = [word for word in _last(key).split("_") if word]
    if key == "seed":
        return "s"
    return "".join(word[0] for word in words) if len(words) > 1 else words[0][:_LETTERS]


def _word(short: str, value: Any) -> str:
    if isinstance(value, bool):
        return short if value else ""
    return short + _ODD.sub("-", shown_value(value))
