"""Read the rows of a Parquet file with pyarrow."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.columns import Roles
from grulab.sequence_files.flat import quote, reason
from grulab.sequence_files.rows import Choose, Rows, Texts, refuse_odd_texts

_FIRST_ROW = 1


def open_parquet(path: Path) -> Any:
    """Return the file as ``pyarrow.parquet.ParquetFile``.

    Raises:
        ConfigError: if pyarrow is missing, or the file cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ConfigError(f"{path.name}: Parquet needs pyarrow: pip install 'grulab[parquet]'") from None
    try:
        # With pre_buffer everything that was read stays in memory until the file is closed.
        file = ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        names = list(file.schema_arrow.names)
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{path.name}: cannot be read as Parquet ({reason(error)})") from None
    refuse_odd_texts(path.name, None, names)
    return file


def read_parquet_rows(path: Path, choose: Choose) -> Rows:
    """Read a Parquet file.

    Args:
        path: of the file.
        choose: the names of the columns -> what they are.

    Raises:
        ConfigError: if it cannot be read, or a column is of a kind that has no use; naming the row and the column.
    """
    file = open_parquet(path)
    roles = choose(list(file.schema_arrow.names))
    return read_batch(path.name, file, roles)


def read_batch(name: str, file: Any, roles: Roles) -> Rows:
    """Read all rows, column by column, so that only one is in memory twice."""
    from pyarrow import ArrowException

    try:
        texts = {column: _texts(name, column, _column(file, column)) for column in roles.texts}
        # The number of rows that the file claims to have may be another one.
        count = len(texts[roles.id].codes)
        rows = _with_texts(name, texts, roles, np.empty((count, len(roles.features))))
        for place, column in enumerate(roles.features):
            rows.values[:, place] = to_numbers(name, column, _column(file, column))
        time = None if roles.time is None else to_times(rows, roles.time, _column(file, roles.time))
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{name}: cannot be read as Parquet ({reason(error)})") from None
    return replace(rows, time=time)


def read_parts(name: str, file: Any, roles: Roles, rows_together: int) -> Iterator[Rows]:
    """Read a file that need not fit into memory.

    Raises:
        ConfigError: as :func:`read_parquet_rows`.
    """
    import pyarrow as pa
    from pyarrow import ArrowException

    if roles.label is not None and not _may_be_text(file.schema_arrow.field(roles.label).type):
        # A prediction needs no labels: an empty column of them is of no type, or of floats.
        roles = replace(roles, label=None)
    wanted = [*roles.texts, *roles.features, *([roles.time] if roles.time else [])]
    row = _FIRST_ROW
    try:
        for batch in file.iter_batches(rows_together, columns=wanted):
            table = pa.Table.from_batches([batch])
            texts = {column: _texts(name, column, table[column], row) for column in roles.texts}
            rows = _with_texts(name, texts, roles, np.empty((len(table), len(roles.features))))
            for place, column in enumerate(roles.features):
                rows.values[:, place] = to_numbers(name, column, table[column])
            rows = replace(rows, first_row=row)
            time = None if roles.time is None else to_times(rows, roles.time, table[roles.time])
            yield replace(rows, time=time)
            row += len(table)
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{name}: cannot be read as Parquet ({reason(error)})") from None


def _with_texts(name: str, texts: dict[str, Texts], roles: Roles, values: NDArray[np.float64]) -> Rows:
    def of(column: str | None) -> Texts | None:
        return texts[column] if column is not None else None

    return Rows(
        name,
        _FIRST_ROW,
        texts[roles.id],
        None,
        of(roles.label),
        of(roles.split),
        of(roles.group),
        roles.features,
        values,
    )


def _column(file: Any, column: str) -> Any:
    return file.read(columns=[column])[0]


def _texts(name: str, title: str, column: Any, first_row: int = _FIRST_ROW) -> Texts:
    """Return a column as texts: whole numbers as such, not as 1.0; ``first_row`` is the number of its first row.

    Raises:
        ConfigError: if a row has no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not _may_be_text(column.type):
        raise ConfigError(f"{name}: column {title} is {kind}; texts or whole numbers are needed")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy())) + first_row
        raise ConfigError(f"{name}: row {row}: has no value in column {title}")
    encoded = (
        pc.dictionary_encode(column).combine_chunks()
        if not pa.types.is_dictionary(column.type)
        else (column.unify_dictionaries().combine_chunks())
    )
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    names = [str(text) for text in encoded.dictionary.cast(pa.string()).to_pylist()]
    if pa.types.is_boolean(kind):
        # As pandas writes them to a CSV.
        names = [text.capitalize() for text in names]
    refuse_odd_texts(name, title, names)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # A dictionary may hold names that no row has, or one twice.
    used, compact = np.unique(codes, return_inverse=True)
    unique: dict[str, int] = {}
    places = np.array([unique.setdefault(names[code], len(unique)) for code in used.tolist()], np.int64)
    return Texts(places[compact.reshape(-1)] if len(codes) else codes, list(unique))


def _may_be_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    simple = (
        pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_date,
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in simple) or bool(kind == pa.string_view())


def to_numbers(name: str, title: str, column: Any) -> NDArray[np.float64]:
    """Return a column as float64; nulls are NaN.

    Raises:
        ConfigError: if it does not hold numbers.
    """
    import pyarrow as pa

    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise ConfigError(
            f"{name}: column {title} is {column.type}, and features are numbers; name them: data.features=[...]"
        )
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def to_times(rows: Rows, title: str, column: Any) -> NDArray[Any]:
    """Return a column of times as numbers.

    Raises:
        ConfigError: if it holds no times.
    """
    import pyarrow as pa

    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ConfigError(f"{rows.describe(row)}, column {title}: has no time")
    if pa.types.is_temporal(column.type):
        if pa.types.is_date32(column.type) or pa.types.is_time32(column.type):
            column = column.cast(pa.int32())
        return np.asarray(column.cast(pa.int64()).to_numpy())
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy())
    if pa.types.is_floating(column.type):
        times = np.asarray(column.cast(pa.float64()).to_numpy())
        if not np.isfinite(times).all():
            row = int(np.argmax(~np.isfinite(times)))
            raise ConfigError(f"{rows.describe(row)}, column {title}: {times[row]} is no time")
        return times
    raise ConfigError(
        f"{rows.name}: column {title} is {column.type}; numbers or dates are needed (data.time_column=null takes the "
        f"rows in the order of the file, and {quote(title)} is no feature then either: data.features=[...])"
    )
