"""Read the .ts files of the UCR and UEA archives (https://www.timeseriesclassification.com)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.field_types import SPLITS, Split
from grulab.sequence_files.flat import NO_SPLIT, FlatSequences, encode, quote, refuse_infinite, shorten
from grulab.sequence_files.rows import refuse_odd_texts

_PAIR = re.compile(r"(.*)_(train|test)(\.ts)", re.IGNORECASE)
_MISSING = ("?", "nan", "")
_OTHER_WORDS = (
    "problemname", "missing", "univariate", "dimension", "dimensions", "equallength", "serieslength",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One line of data: (steps, dimensions) float64, its label if the file has labels, and the number of its line."""

    values: NDArray[np.float64]
    label: str | None
    line: int


def files_of(path: Path) -> list[tuple[Path, int]]:
    """Return the files of a data set, each with the code of its split: a ``_TRAIN`` and ``_TEST`` pair, or one file.

    Raises:
        ConfigError: if one of a pair is missing.
    """
    found = _PAIR.fullmatch(path.name)
    if found is None:
        return [(path, NO_SPLIT)]
    files = []
    pair: tuple[Split, ...] = ("train", "test")
    for split in pair:
        word = split.upper() if found[2].isupper() else split.capitalize() if found[2][0].isupper() else split
        file = path if found[2].lower() == split else path.with_name(f"{found[1]}_{word}{found[3]}")
        if not file.is_file():
            raise ConfigError(
                f"data.path={path}: its pair {file.name} is not beside it; put it there, or give this file a name "
                f"without _{found[2]}: then its splits are made"
            )
        files.append((file, SPLITS.index(split)))
    return files


def read_ts(path: Path) -> FlatSequences:
    """Read a .ts file, or the pair of a data set.

    Steps at the end at which every dimension is missing are padding, and left out.

    Raises:
        ConfigError: naming what is odd.
    """
    cases: list[Case] = []
    splits: list[int] = []
    names: list[str] = []
    ids: list[str] = []
    for file, split in files_of(path):
        found = list(read_cases(file))
        prefix = "" if split == NO_SPLIT else f"{SPLITS[split]}-"
        cases += found
        splits += [split] * len(found)
        names += [file.name] * len(found)
        ids += [f"{prefix}{number}" for number in range(1, len(found) + 1)]
    if not cases:
        raise ConfigError(f"{path.name}: holds no sequence")
    width = cases[0].values.shape[1]
    for case, name in zip(cases, names, strict=True):
        if case.values.shape[1] != width:
            raise ConfigError(
                f"{name}: line {case.line} has {case.values.shape[1]} dimensions, and the first sequence has {width}"
            )
    lengths = np.array([len(case.values) for case in cases], np.int64)
    features = [f"feature_{number}" for number in range(1, width + 1)]
    ends = np.cumsum(lengths)

    def describe(step: int) -> str:
        place = int(np.searchsorted(ends, step, side="right"))
        within = step - int(ends[place]) + int(lengths[place]) + 1
        return f"{names[place]}: line {cases[place].line} (id {ids[place]}), step {within}"

    values = np.concatenate([case.values for case in cases])
    missing = refuse_infinite(values, describe, features)
    classes, class_names = encode([str(case.label) for case in cases])
    return FlatSequences(
        values, lengths, classes, class_names, np.array(ids), np.array(splits, np.int8), None, [], features, missing,
        has_names=False,
    )  # fmt: skip


def read_cases(path: Path, needs_labels: bool = True) -> Iterator[Case]:
    """Read the sequences of one .ts file, line by line.

    Args:
        path: of the file.
        needs_labels: whether a file without labels (``@classLabel false``) is refused.

    Raises:
        ConfigError: naming the line that is odd.
    """
    labels: list[str] | None = None
    in_data = False
    try:
        with path.open(encoding="utf-8-sig", errors="strict", newline=None) as file:
            for number, line in enumerate(file, start=1):
                line = line.strip()
                if not line or (not in_data and line[0] in "#%"):
                    continue
                if in_data:
                    if labels is None or (needs_labels and not labels):
                        raise ConfigError(
                            f"{path.name}: has no @classLabel true: without labels there are no classes"
                        )
                    yield _case(path.name, number, line, labels)
                elif line.lower() == "@data":
                    in_data = True
                elif line.startswith("@"):
                    found = _declared(path.name, number, line)
                    labels = found if found is not None else labels
                else:
                    raise ConfigError(
                        f"{path.name}: line {number} comes before @data and begins with no @: no .ts file"
                    )
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if not in_data:
        raise ConfigError(f"{path.name}: has no line @data: it is no .ts file, or cut off")


def _declared(name: str, number: int, line: str) -> list[str] | None:
    """Return the labels that a line of the head declares, or [] if it says that there are none; None otherwise."""
    word, *rest = line[1:].split()
    word = word.lower()
    if word == "timestamps":
        if rest[:1] and rest[0].lower() == "true":
            raise ConfigError(f"{name}: line {number}: has time stamps (@timeStamps true), which are not read")
    elif word == "targetlabel":
        raise ConfigError(f"{name}: line {number}: @targetLabel is for regression, and grulab tells classes apart")
    elif word == "classlabel":
        if [word.lower() for word in rest] == ["false"]:
            return []
        if not rest or rest[0].lower() != "true":
            raise ConfigError(f"{name}: line {number}: @classLabel is neither true nor false")
        if len(set(rest[1:])) < len(rest[1:]) or not rest[1:]:
            raise ConfigError(f"{name}: line {number}: @classLabel true names no class, or one twice")
        refuse_odd_texts(name, "@classLabel", rest[1:])
        return rest[1:]
    elif word not in _OTHER_WORDS:
        raise ConfigError(f"{name}: line {number}: {quote('@' + word)} is no word of a .ts file")
    return None


def _case(name: str, number: int, line: str, labels: list[str]) -> Case:
    if "(" in line:
        raise ConfigError(f"{name}: line {number} has time stamps, which are not read")
    dimensions, label = [part.strip() for part in line.split(":")], None
    if labels:
        label = dimensions.pop()
    if not dimensions:
        raise ConfigError(f"{name}: line {number} has no label: values and label are separated by a colon")
    if label is not None and label not in labels:
        missing = "has no label" if not label else f"has the label {quote(label)}"
        raise ConfigError(f"{name}: line {number} {missing}; @classLabel declares {shorten(labels)}")
    columns = [_dimension(name, number, place, text) for place, text in enumerate(dimensions, start=1)]
    sizes = sorted({len(column) for column in columns})
    if len(sizes) > 1:
        raise ConfigError(f"{name}: line {number} has dimensions of {sizes[0]} and of {sizes[-1]} steps")
    values = np.stack(columns, axis=1)
    known = np.asarray(~np.isnan(values).all(axis=1))
    if not known.any():
        raise ConfigError(f"{name}: line {number}: the sequence is empty")
    return Case(np.ascontiguousarray(values[: len(known) - int(np.argmax(known[::-1]))]), label, number)


def _number(word: str) -> float:
    return float(word.replace("_", "?").encode("ascii"))


def _dimension(name: str, number: int, place: int, text: str) -> NDArray[np.float64]:
    parts = text.split(",")
    try:
        # Python reads 1_0 as 10, and digits of any script; NumPy passes over NUL at the end.
        if text.isascii() and "_" not in text and "\0" not in text:
            return np.array(parts, dtype=np.float64)
    except ValueError:
        pass
    values = []
    for step, part in enumerate(parts, start=1):
        word = part.strip()
        try:
            values.append(float("nan") if word.lower() in _MISSING else _number(word))
        except ValueError:
            raise ConfigError(
                f"{name}: line {number}, dimension {place}, step {step}: {quote(word)} is no number"
            ) from None
    return np.array(values, np.float64)
