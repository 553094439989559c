"""Read the sequences of a file of any size, a part at a time, for a model that has learned from a file like it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files import npz, ts
from grulab.sequence_files.cache import refuse_no_file
from grulab.sequence_files.columns import Columns, Roles, hint_on_separator, refuse_twice
from grulab.sequence_files.flat import FlatSequences, quote, refuse_infinite, shorten, starts_of
from grulab.sequence_files.rows import Rows, Texts

STANDARD_INPUT = "-"
_ROWS_TOGETHER = 2**17
# A column's values are texts at first, so of many columns fewer rows are read together.
_VALUES_TOGETHER = 2**22


@dataclass(frozen=True)
class Part:
    """Some of a file's sequences: flat values with the features of the model, in its order.

    Attributes:
        first_missing: where the first missing value is, in words; None if there is none.
    """

    values: NDArray[np.float64]
    lengths: NDArray[np.int64]
    ids: list[str]
    labels: list[str] | None
    first_missing: str | None


class Stream:
    """The sequences of a file, a part at a time.

    Attributes:
        notes: what is odd in the file, but no mistake; complete when all parts were read.

    Args:
        path: of the file; "-" is standard input, a table in CSV.
        columns: of the file that the model has learned from; its features are the model's.

    Raises:
        ConfigError: if there is no such file, or none of a known form.
    """

    def __init__(self, path: str, columns: Columns) -> None:
        self.notes: list[str] = []
        self._columns = columns
        self._path = Path(path)
        self._is_standard_input = path == STANDARD_INPUT
        self.name = "standard input" if self._is_standard_input else self._path.name
        self._seen: set[int] = set()
        self._rows_together = max(64, min(_ROWS_TOGETHER, _VALUES_TOGETHER // max(1, len(columns.features or ()))))
        if not self._is_standard_input:
            refuse_no_file(self._path, key="")

    def parts(self) -> Iterator[Part]:
        """Yield the sequences.

        Raises:
            ConfigError: naming what is odd in the file.
        """
        suffix = self._path.suffix.lower()
        if not self._is_standard_input and suffix in (".npz", ".ts"):
            yield from self._of_npz() if suffix == ".npz" else self._of_ts()
            return
        waiting: list[Rows] = []
        for rows in self._rows():
            # The last sequence may go on in the next rows.
            changes = np.flatnonzero(np.diff(rows.id.codes))
            goes_on = not waiting or _last_id(waiting[-1]) == rows.id.names[int(rows.id.codes[0])]
            if goes_on and not len(changes):
                waiting.append(rows)
                continue
            end = int(changes[-1]) + 1 if len(changes) else 0
            yield self._part(_joined([*waiting, _sliced(rows, 0, end)]) if end else _joined(waiting))
            waiting = [_sliced(rows, end, len(rows.values))]
        if waiting:
            yield self._part(_joined(waiting))

    def _rows(self) -> Iterator[Rows]:
        from grulab.sequence_files.long_table import PARQUET

        if not self._is_standard_input and self._path.suffix.lower() in PARQUET:
            from grulab.sequence_files.parquet_rows import open_parquet, read_parts

            file = open_parquet(self._path)
            yield from read_parts(self.name, file, self._roles(list(file.schema_arrow.names)), self._rows_together)
            return
        from grulab.sequence_files.csv_rows import read_parts as read_csv_parts

        separator = "," if self._is_standard_input else None
        with sys.stdin.buffer if self._is_standard_input else self._path.open("rb") as file:
            yield from read_csv_parts(self.name, self._path, file, separator, self._roles, self._rows_together)

    def _roles(self, header: list[str]) -> Roles:
        """Find the columns by their names.

        Raises:
            ConfigError: if one that the model needs is missing.
        """
        refuse_twice(self.name, header)
        wanted = self._columns
        assert wanted.features is not None
        if twice := [column for column in (wanted.id, wanted.time) if column in wanted.features]:
            raise ConfigError(
                f"{self.name}: the column {quote(twice[0])} would be a feature of the model and its data."
                f"{'id' if twice[0] == wanted.id else 'time'}_column; write an .npz file"
            )
        needed = [wanted.id, *([wanted.time] if wanted.time else []), *wanted.features]
        known = set(header)
        if lacking := [column for column in needed if column not in known]:
            raise ConfigError(
                f"{self.name}: has no column {shorten(lacking)}, which the model has learned from; "
                f"it has {shorten(header)}{hint_on_separator(header)}"
            )
        used = {*needed, wanted.label, wanted.split, wanted.group}
        if extra := [column for column in header if column not in used]:
            self.notes.append(f"{self.name}: {shorten(extra)}: not used, because the model has not learned from it")
        label = wanted.label if wanted.label in header and wanted.label not in wanted.features else None
        return Roles(wanted.id, wanted.time, label, None, None, list(wanted.features))

    def _part(self, rows: Rows) -> Part:
        """Return whole sequences."""
        codes = rows.id.codes
        first = np.flatnonzero(np.diff(codes, prepend=-1))
        lengths = np.diff(first, append=len(codes))
        for code in codes[first].tolist():
            key = hash(rows.id.names[code])
            if key in self._seen:
                raise ConfigError(
                    f"{self.name}: the rows of id {quote(rows.id.names[code])} are not together; sort the file by id "
                    "(a file of any size is read once, from top to bottom)"
                )
            self._seen.add(key)
        values = rows.values
        if rows.time is not None:
            order = np.lexsort((rows.time, np.repeat(np.arange(len(lengths)), lengths)))
            time, sequence = rows.time[order], np.repeat(np.arange(len(lengths)), lengths)
            same = (np.diff(time) == 0) & (np.diff(sequence) == 0)
            if same.any():
                raise ConfigError(
                    f"{rows.describe(int(order[int(np.argmax(same)) + 1]))}: another row has the same id and time"
                )
            values = values[order]
        missing = refuse_infinite(rows.values, rows.describe, rows.features)
        ids = [rows.id.names[code] for code in codes[first].tolist()]
        labels = None if rows.label is None else [rows.label.names[code] for code in rows.label.codes[first].tolist()]
        if rows.label is not None:
            differs = rows.label.codes != np.repeat(rows.label.codes[first], lengths)
            if differs.any():
                raise ConfigError(f"{rows.describe(int(np.argmax(differs)))}: the label differs from the rows before")
        return Part(values, lengths, ids, labels, missing)

    def _of_npz(self) -> Iterator[Part]:
        assert self._columns.features is not None
        arrays = npz.read_arrays(self._path, self.name)
        has_labels = "labels" in arrays
        for key in ("values", "lengths"):
            if key not in arrays:
                raise ConfigError(f"{self.name}: has no array {key}")
        if not has_labels:
            arrays = {key: array for key, array in arrays.items() if key != "class_names"}
            arrays["labels"] = np.full(len(np.atleast_1d(arrays["lengths"])), "?")
        flat = npz.from_arrays(self.name, arrays)
        part = part_of(flat, self._columns, self.name, self.notes)
        yield part if has_labels else replace(part, labels=None)

    def _of_ts(self) -> Iterator[Part]:
        cases: list[ts.Case] = []
        number = steps = 0
        for case in ts.read_cases(self._path, needs_labels=False):
            _refuse_other_width(self.name, case.values.shape[1], self._columns)
            cases.append(case)
            number, steps = number + 1, steps + len(case.values)
            if steps >= _ROWS_TOGETHER:
                yield self._of_cases(cases, number)
                cases, steps = [], 0
        if cases:
            yield self._of_cases(cases, number)

    def _of_cases(self, cases: list[ts.Case], number: int) -> Part:
        lengths = np.array([len(case.values) for case in cases], np.int64)
        values = np.concatenate([case.values for case in cases])
        starts = starts_of(lengths)

        def describe(step: int) -> str:
            return f"{self.name}: line {cases[int(np.searchsorted(starts, step, side='right')) - 1].line}"

        missing = refuse_infinite(values, describe, self._columns.features or ())
        ids = [str(place) for place in range(number - len(cases) + 1, number + 1)]
        labels = [case.label for case in cases if case.label is not None]
        return Part(values, lengths, ids, labels or None, missing)


def part_of(flat: FlatSequences, columns: Columns, name: str, notes: list[str]) -> Part:
    """Return all sequences of a file as one part.

    Args:
        flat: the sequences.
        columns: of the file that the model has learned from; its features are the model's.
        name: of the file, for the messages.
        notes: what is odd, but no mistake, is appended.

    Raises:
        ConfigError: if a feature is missing.
    """
    wanted = columns.features
    assert wanted is not None
    values = flat.values
    if flat.has_names:
        if lacking := [feature for feature in wanted if feature not in flat.feature_names]:
            raise ConfigError(
                f"{name}: has no feature {shorten(lacking)}, which the model has learned from; "
                f"it has {shorten(flat.feature_names)}"
            )
        if extra := [feature for feature in flat.feature_names if feature not in wanted]:
            notes.append(f"{name}: {shorten(extra)}: not used, because the model has not learned from it")
        values = values[:, [flat.feature_names.index(feature) for feature in wanted]]
    else:
        _refuse_other_width(name, values.shape[1], columns)
    labels = [flat.class_names[code] for code in flat.classes.tolist()]
    return Part(values, flat.lengths, [str(text) for text in flat.ids], labels, flat.first_missing)


def _refuse_other_width(name: str, width: int, columns: Columns) -> None:
    assert columns.features is not None
    if width != len(columns.features):
        raise ConfigError(
            f"{name}: has {width} features, and the model has learned from {len(columns.features)}: "
            f"{shorten(list(columns.features))}"
        )


def _sliced(rows: Rows, start: int, end: int) -> Rows:
    label = None if rows.label is None else Texts(rows.label.codes[start:end], rows.label.names)
    return replace(
        rows,
        first_row=rows.first_row + start,
        id=Texts(rows.id.codes[start:end], rows.id.names),
        time=None if rows.time is None else rows.time[start:end],
        label=label,
        values=rows.values[start:end],
    )


def _last_id(rows: Rows) -> str:
    return rows.id.names[int(rows.id.codes[-1])]


def _joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    times: list[NDArray[np.float64]] = [part.time for part in parts if part.time is not None]  # type: ignore[misc]
    labels = [part.label for part in parts if part.label is not None]
    return replace(
        parts[0],
        id=_joined_texts([part.id for part in parts]),
        # Whole numbers and others together are floats.
        time=np.concatenate(times) if times else None,
        label=_joined_texts(labels) if labels else None,
        values=np.concatenate([part.values for part in parts]),
    )


def _joined_texts(parts: Sequence[Texts]) -> Texts:
    places: dict[str, int] = {}
    codes = []
    for part in parts:
        # A part that was cut off another one has names that none of its rows has.
        used, inverse = np.unique(part.codes, return_inverse=True)
        own = [places.setdefault(part.names[code], len(places)) for code in used.tolist()]
        codes.append(np.array(own, np.int64)[inverse.reshape(-1)])
    return Texts(np.concatenate(codes), list(places))
