"""Read a long table, a row for each step: CSV, TSV and Parquet."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.columns import Columns, Roles, find_roles
from grulab.sequence_files.csv_rows import read_csv_rows
from grulab.sequence_files.flat import (
    NO_SPLIT,
    FlatSequences,
    array_of_ids,
    encode_splits,
    in_natural_order,
    quote,
    refuse_infinite,
)
from grulab.sequence_files.parquet_rows import read_parquet_rows
from grulab.sequence_files.rows import Rows, Texts

PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", ".tsv", ".tab", *PARQUET)


def read_rows(path: Path, columns: Columns, has_label: bool, has_features: bool) -> Rows:
    """Read the columns of a table that have a use.

    Raises:
        ConfigError: naming what is odd.
    """
    read = read_parquet_rows if path.suffix.lower() in PARQUET else read_csv_rows

    def choose(header: list[str]) -> Roles:
        return find_roles(path.name, header, columns, has_label, has_features)

    return read(path, choose)


def read_long_table(path: Path, labels_path: Path | None, columns: Columns) -> FlatSequences:
    """Read a table of ``id, time, features..., label``, and if there are ``split`` and ``group``.

    Args:
        path: of the table.
        labels_path: of a table with the columns of id, label and, if there are, split and group; None if all are in
            the first one.
        columns: their names.

    Raises:
        ConfigError: naming what is odd with its id, row and column.
    """
    rows = read_rows(path, columns, has_label=labels_path is None, has_features=True)
    if not len(rows.values):
        raise ConfigError(f"{path.name}: holds no sequence")
    order, notes = _in_order(path.name, rows)
    sequences = rows.id.codes if order is None else rows.id.codes[order]
    first = np.flatnonzero(np.diff(sequences, prepend=-1))
    lengths = np.diff(first, append=len(sequences))
    values = rows.values if order is None else rows.values[order]

    def row_of(step: int) -> int:
        return step if order is None else int(order[step])

    ids = array_of_ids(path.name, rows.id.names, sequences[first])
    described = {
        role: _of_each_sequence(role, texts, rows, sequences, first, order)
        for role, texts in (("label", rows.label), ("split", rows.split), ("group", rows.group))
        if texts is not None
    }

    def where(sequence: int) -> str:
        return rows.describe(row_of(int(first[sequence])))

    if labels_path is not None:
        table = _from_labels(path.name, labels_path, columns, ids)
        if both := described.keys() & table.keys():
            raise ConfigError(f"{labels_path.name}: {path.name} has a column of the {min(both)} too; leave out one")
        described |= table
    classes, class_names = in_natural_order(*_compact(described["label"]))
    splits = np.full(len(lengths), NO_SPLIT, np.int8)
    if "split" in described:
        codes, names = described["split"]
        splits = encode_splits(np.array(names)[codes], where)
    groups, group_names = None, list[str]()
    if "group" in described:
        groups, group_names = in_natural_order(*_compact(described["group"]))
    missing = refuse_infinite(values, lambda step: rows.describe(row_of(step)), rows.features)
    return FlatSequences(
        values, lengths, classes, class_names, ids, splits, groups, group_names, rows.features, missing, notes
    )


def _in_order(name: str, rows: Rows) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the order in which the rows of a sequence are together and sorted by time; None if they are so already.

    Raises:
        ConfigError: if two rows have the same id and time.
    """
    codes, time = rows.id.codes, rows.time
    changes = int(np.count_nonzero(np.diff(codes))) + 1
    is_together = changes == len(rows.id.names)
    notes: list[str] = []
    if time is None:
        return (None if is_together else np.argsort(codes, kind="stable")), notes
    if is_together:
        # No difference: of two times far apart it is beyond 64 bits.
        rises = time[1:] > time[:-1]
        if bool((rises | (np.diff(codes) != 0)).all()):
            return None, notes
    order = np.lexsort((time, codes))
    sorted_codes, sorted_time = codes[order], time[order]
    same = (np.diff(sorted_codes) == 0) & (sorted_time[1:] == sorted_time[:-1])
    if same.any():
        place = int(np.argmax(same))
        one, other = sorted((int(order[place]), int(order[place + 1])))
        raise ConfigError(
            f"{rows.describe(other)}: has the same id and time as {rows.row(one)} (dates are read to the microsecond)"
        )
    # Within a sequence the rows come in rising order, if they were sorted.
    unsorted = (np.diff(sorted_codes) == 0) & (np.diff(order) < 0)
    if unsorted.any():
        number = len(np.unique(sorted_codes[1:][unsorted]))
        first = rows.id.names[int(sorted_codes[1:][np.argmax(unsorted)])]
        notes.append(f"the time is unsorted in {number:,} sequences, such as id {quote(first)}; the steps are sorted")
    return order, notes


def _of_each_sequence(
    role: str,
    texts: Texts,
    rows: Rows,
    sequences: NDArray[np.int64],
    first: NDArray[np.int64],
    order: NDArray[np.int64] | None,
) -> Texts:
    """Return the one text of each sequence in a column.

    Raises:
        ConfigError: if a sequence has several, or an empty one.
    """
    codes = texts.codes if order is None else texts.codes[order]
    of_sequence = codes[first]
    differs = codes != np.repeat(of_sequence, np.diff(first, append=len(codes)))
    if differs.any():
        step = int(np.argmax(differs))
        row = step if order is None else int(order[step])
        sequence = int(np.searchsorted(first, step, side="right")) - 1
        raise ConfigError(
            f"{rows.describe(row)}: the {role} is {quote(texts.names[codes[step]])}, and "
            f"{quote(texts.names[of_sequence[sequence]])} in the rows before; a sequence has one {role}"
        )
    if "" in texts.names and (odd := of_sequence == texts.names.index("")).any():
        step = int(first[np.argmax(odd)])
        raise ConfigError(f"{rows.describe(step if order is None else int(order[step]))}: has no {role}")
    return Texts(of_sequence, texts.names)


def _from_labels(name: str, labels_path: Path, columns: Columns, ids: NDArray[np.str_]) -> dict[str, Texts]:
    """Return the label, and the split and the group if there are, of each id from a table of their own.

    Raises:
        ConfigError: if an id is missing or there twice, or has no sequence.
    """
    table = read_rows(labels_path, columns, has_label=True, has_features=False)
    where = {table.id.names[code]: row for row, code in enumerate(table.id.codes.tolist())}
    if len(where) < len(table.id.codes):
        counts = np.bincount(table.id.codes)
        row = int(np.flatnonzero(table.id.codes == int(np.argmax(counts > 1)))[1])
        raise ConfigError(f"{table.describe(row)}: the id is there already; a sequence has one label")
    known = ids.tolist()
    if left := next((text for text in known if text not in where), None):
        raise ConfigError(f"{labels_path.name}: has no row for the id {quote(left)} of {name}")
    if len(known) < len(where):
        extra = min(set(where) - set(known), key=where.__getitem__)
        raise ConfigError(f"{table.describe(where[extra])}: {name} has no rows of it: the sequence is empty")
    places = np.array([where[text] for text in known], np.int64)
    found = {}
    for role, texts in (("label", table.label), ("split", table.split), ("group", table.group)):
        if texts is None:
            continue
        if "" in texts.names and (odd := texts.codes == texts.names.index("")).any():
            raise ConfigError(f"{table.describe(int(np.argmax(odd)))}: has no {role}")
        found[role] = Texts(texts.codes[places], texts.names)
    return found


def _compact(texts: Texts) -> tuple[NDArray[np.int64], list[str]]:
    """Leave out the names that no sequence has."""
    used, codes = np.unique(texts.codes, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), [texts.names[index] for index in used.tolist()]
