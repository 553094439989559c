"""Labelled sequences of different lengths as flat arrays: what the readers of files return."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.field_types import SPLITS

# An array of texts takes four bytes a character, and as many characters for each text as the longest has.
_MOST_CHARACTERS = 2**27
# The code of a sequence without a split in ``FlatSequences.splits``; the others are positions in SPLITS.
NO_SPLIT = -1
_LONGEST = 60


@dataclass(frozen=True)
class FlatSequences:
    """Sequences one after the other, as a file has them: not scaled, missing values are NaN.

    Attributes:
        values: (steps, features) float64, the steps of all sequences.
        lengths: (sequences,) int64, in steps.
        classes: (sequences,) int64, positions in ``class_names``.
        class_names: the labels in natural order: ``class2`` before ``class10``.
        ids: (sequences,) text, different from each other.
        splits: (sequences,) int8, positions in SPLITS, or NO_SPLIT.
        groups: (sequences,) int64, positions in ``group_names``; None without groups.
        group_names: the names of the groups.
        feature_names: one for each feature.
        first_missing: where the first missing value is, in words; None if there is none.
        notes: what is odd in the file, but no mistake.
        has_names: whether the file names its features.
    """

    values: NDArray[np.float64]
    lengths: NDArray[np.int64]
    classes: NDArray[np.int64]
    class_names: list[str]
    ids: NDArray[np.str_]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64] | None
    group_names: list[str]
    feature_names: list[str]
    first_missing: str | None = None
    notes: list[str] = field(default_factory=list)
    has_names: bool = True


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first step of each sequence in the flat arrays: (sequences,) int64."""
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


def array_of_ids(name: str, ids: Sequence[str], codes: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the id of each sequence as an array.

    Args:
        name: of the file, for the message.
        ids: the different ids.
        codes: (sequences,) positions in ``ids``.

    Raises:
        ConfigError: if one is so long that the array of all would be too large.
    """
    longest = max(ids, key=len, default="")
    if len(longest) * len(codes) > _MOST_CHARACTERS:
        raise ConfigError(
            f"{name}: the id {quote(longest)} has {len(longest)} characters, too many for {len(codes):,} "
            "sequences; shorten it"
        )
    return np.array(ids, np.str_)[codes]


def encode(texts: Sequence[str] | NDArray[np.str_]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the position of each text among the different ones, and those in natural order."""
    array = np.asarray(texts, dtype=np.str_)
    found, inverse = np.unique(array, return_inverse=True)
    return in_natural_order(inverse.reshape(-1).astype(np.int64), found.tolist())


def in_natural_order(codes: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Sort the names in natural order, and change their codes accordingly."""
    order = sorted(range(len(names)), key=lambda index: natural_key(names[index]))
    places = np.empty(len(names), np.int64)
    places[order] = np.arange(len(names))
    return places[codes], [names[index] for index in order]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in texts by their value: ``class2`` before ``class10``."""
    parts = re.split(r"([0-9]+)", text)
    # Python refuses to read an integer of more than 4300 digits.
    keys = [
        (0, int(part), part) if part.isascii() and part.isdigit() and len(part) < 20 else (1, 0, part)
        for part in parts
        if part
    ]
    # 01 and 1 have the same value.
    return [*keys, (-1, 0, text)]


def encode_splits(texts: Sequence[str] | NDArray[np.str_], describe: Callable[[int], str]) -> NDArray[np.int8]:
    """Return the codes of the splits' names.

    Args:
        texts: the name of each sequence's split.
        describe: the position of a sequence -> where it is, such as ``data.csv: row 2 (id 1)``.

    Raises:
        ConfigError: for a name that is none of train, val and test.
    """
    names, inverse = np.unique(np.asarray(texts, dtype=np.str_), return_inverse=True)
    for position, name in enumerate(names.tolist()):
        if name not in SPLITS:
            first = int(np.argmax(inverse.reshape(-1) == position))
            raise ConfigError(f"{describe(first)}: the split {quote(name)} is none of {', '.join(SPLITS)}")
    codes = np.array([SPLITS.index(name) for name in names.tolist()], np.int8)
    splits: NDArray[np.int8] = codes[inverse.reshape(-1)]
    return splits


def quote(text: object) -> str:
    """Return a text from a file in quotes and in one line, shortened if it is long."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= _LONGEST else f"{quoted[:_LONGEST]}...'"


def reason(error: BaseException) -> str:
    """Return what a library says of a file, in one line: it may quote bytes of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(mark if mark.isprintable() else "?" for mark in text)[:200]


def shorten(names: Sequence[str], most: int = 10) -> str:
    """Return names in one line; of many, the first ones."""
    first = ", ".join(map(shown, names[:most]))
    return first if len(names) <= most else f"{first} and {len(names) - most:,} more"


def shown(name: str) -> str:
    """Return a name from a file as it is, or in quotes if it holds more than letters, digits and ``_.-``."""
    return name if re.fullmatch(r"[\w.-]{1,40}", name) else quote(name)


def refuse_infinite(
    values: NDArray[np.float64], describe: Callable[[int], str], feature_names: Sequence[str]
) -> str | None:
    """Check that no value is infinite; return where the first missing one is, in words, or None.

    Args:
        values: (steps, features).
        describe: a step -> where it is, such as ``data.csv: row 2 (id 1)``.
        feature_names: of the columns.

    Raises:
        ConfigError: if a value is infinite.
    """
    missing = None
    for start in range(0, len(values), 2**18):
        block = values[start : start + 2**18]
        odd = ~np.isfinite(block)
        if not odd.any():
            continue
        steps, features = np.nonzero(odd)
        infinite = np.isinf(block[steps, features])
        if infinite.any():
            place = int(np.argmax(infinite))
            where = f"{describe(start + int(steps[place]))}, column {feature_names[features[place]]}"
            raise ConfigError(f"{where}: the value is infinite; correct it, or leave the sequence out")
        missing = missing or f"{describe(start + int(steps[0]))}, column {feature_names[features[0]]}"
    return missing
