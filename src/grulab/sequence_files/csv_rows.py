"""Read the rows of a CSV or TSV file with pandas, with everything off that pandas guesses."""

import codecs
import csv
import io
import re
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.columns import Roles
from grulab.sequence_files.csv_marks import Marks, refuse_odd_marks
from grulab.sequence_files.flat import quote, reason
from grulab.sequence_files.rows import Choose, Rows, Texts, refuse_odd_texts

# How a missing value of a feature is written. In ids and labels nothing is: the class NA is a class.
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_FIRST_ROW = 2
_OF_PANDAS = "Error tokenizing data. C error: "
_MAX_HEADER = 2**22


def separator_of(path: Path) -> str:
    """Return the separator that a file's name stands for."""
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","


def read_csv_rows(path: Path, choose: Choose) -> Rows:
    """Read a CSV or TSV file.

    Args:
        path: of the file.
        choose: the names of the columns -> what they are.

    Raises:
        ConfigError: if it cannot be read, or a value is no number; naming the row and the column.
    """
    header = read_header(path)
    roles = choose(header)
    with _explained(path.name):
        refuse_odd_marks(path, separator_of(path), len(header))
        try:
            with _strictly():
                frame = pd.read_csv(path, **_settings(separator_of(path), roles.features))
        except ValueError as error:
            if isinstance(error, UnicodeDecodeError | pd.errors.ParserError):
                raise
            _refuse_text(path, roles)
            raise ConfigError(f"{path.name}: cannot be read ({reason(error).removeprefix(_OF_PANDAS)})") from None
    return to_rows(path.name, frame, roles, _FIRST_ROW)


def read_parts(
    name: str, path: Path, file: BinaryIO, separator: str | None, choose: Choose, rows_together: int
) -> Generator[Rows, None, None]:
    """Read a CSV or TSV file that need not fit into memory.

    Args:
        name: of the file, for the messages.
        path: of the file, whose name tells its separator.
        file: open at its beginning; it need not be one that can be read twice.
        separator: in place of the one that the path stands for.
        choose: the names of the columns -> what they are.
        rows_together: number of rows of a part.

    Raises:
        ConfigError: as :func:`read_csv_rows`.
    """
    separator = separator or separator_of(path)
    line = file.readline(_MAX_HEADER)
    header = header_of(name, line, separator)
    roles = choose(header)
    row = _FIRST_ROW
    with _explained(name):
        # As text: a value that is no number is named, although the file cannot be read again.
        continued = _Continued(line, file, Marks(name, separator, len(header)))
        with _strictly(), pd.read_csv(continued, chunksize=rows_together, **_settings(separator, [])) as reader:
            for frame in reader:
                # pandas gives columns of no rows other types.
                if not frame.empty:
                    yield to_rows(name, _with_numbers(name, frame, roles, row), roles, row)
                row += len(frame)


class _Continued(io.RawIOBase):
    """A file whose first line has been read, with that line; its bytes are checked as they are read."""

    def __init__(self, line: bytes, file: BinaryIO, marks: Marks) -> None:
        self._line = line
        self._file = file
        self._marks = marks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._line[: len(buffer)] or self._file.read(len(buffer))
        self._line = self._line[len(buffer) :]
        buffer[: len(data)] = data
        if data:
            self._marks.feed(data)
        else:
            self._marks.end()
        return len(data)


def _with_numbers(name: str, frame: pd.DataFrame, roles: Roles, first_row: int) -> pd.DataFrame:
    """Convert the features of a part, whose columns are categories of texts, to numbers.

    Raises:
        ConfigError: naming the first value that is none.
    """
    columns: dict[str, Any] = {column: frame[column] for column in roles.texts}
    if roles.time:
        columns[roles.time] = frame[roles.time]
    found: list[tuple[int, str, str]] = []
    for column in roles.features:
        codes = frame[column].cat.codes.to_numpy()
        texts = frame[column].cat.categories.astype(str)
        numbers = np.empty(len(texts))
        odd = []
        for place, text in enumerate(texts):
            try:
                numbers[place] = np.nan if text in MISSING else _number(text)
            except ValueError:
                odd.append(place)
        if odd:
            place = int(np.argmax(np.isin(codes, odd)))
            found.append((place, column, str(frame[column].iloc[place])))
        columns[column] = numbers[codes] if len(texts) else np.empty(0)
    if found:
        place, column, text = min(found)
        where = f"{name}: row {place + first_row} (id {quote(str(frame[roles.id].iloc[place]))[1:-1]})"
        # A column that begins with a text is hardly one of measurements.
        hint = f"; if {column} is no feature, name those that are: data.features=[...]" if place == 0 else ""
        raise ConfigError(f"{where}, column {column}: {quote(text)} is no number{hint}")
    return pd.DataFrame(columns)


def _number(text: str) -> float:
    """Return the number in a text.

    Raises:
        ValueError: if it is none, or a NaN in another spelling than those of MISSING.
    """
    # Python reads 1_0 as 10, and digits of any script.
    number = float(text.replace("_", "?").encode("ascii"))
    if number != number:
        raise ValueError(text)
    return number


def read_header(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        ConfigError: if the file cannot be read, is empty or is no text.
    """
    try:
        with path.open("rb") as file:
            return header_of(path.name, file.readline(_MAX_HEADER), separator_of(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def header_of(name: str, line: bytes, separator: str) -> list[str]:
    """Return the names in the first line of a file.

    Raises:
        ConfigError: if it is empty or no text.
    """
    if b"\0" in line or line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{name}: is no text in UTF-8, and perhaps in UTF-16; save it as UTF-8")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise ConfigError(f"{name}: is empty" if not line else f"{name}: begins with an empty line, not with names")
    # A file may end its lines as old Macs did.
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    try:
        header = next(csv.reader([first], delimiter=separator, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{name}: row 1, the names of the columns, cannot be read ({error})") from None
    refuse_odd_texts(name, None, header)
    if "" in (column.strip() for column in header):
        place = [column.strip() for column in header].index("") + 1
        raise ConfigError(f"{name}: column {place} has no name; give it one")
    return header


def _settings(separator: str, features: Sequence[str]) -> dict[str, Any]:
    """Return how pandas reads a file: these columns as numbers, all others as categories of texts."""
    return {
        "sep": separator,
        # A column without a use is read too: with usecols, pandas does not see that a row has too many fields.
        "dtype": defaultdict(lambda: "category", dict.fromkeys(features, np.float64)),
        "keep_default_na": False,
        "na_values": dict.fromkeys(features, MISSING),
        "float_precision": "round_trip",
        "encoding": "utf-8-sig",
        "encoding_errors": "strict",
        "low_memory": False,
        "index_col": False,
    }


@contextmanager
def _strictly() -> Iterator[None]:
    """Make an error of a row with more fields than names: pandas would leave them out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        yield


def to_rows(name: str, frame: pd.DataFrame, roles: Roles, first_row: int) -> Rows:
    """Return a table that pandas has read as rows.

    Args:
        name: of the file.
        frame: texts as categories, features as float64.
        roles: what the columns are.
        first_row: number of the first row.

    Raises:
        ConfigError: if there is no row, or one has no id or no time.
    """
    if frame.empty:
        raise ConfigError(f"{name}: has names of columns, and no row below them")
    values = frame[roles.features].to_numpy(np.float64) if roles.features else np.empty((len(frame), 0))
    texts = {column: _texts(name, frame[column], column) for column in roles.texts}
    ids = texts[roles.id]
    if "" in ids.names and (odd := ids.codes == ids.names.index("")).any():
        raise ConfigError(f"{name}: row {int(np.argmax(odd)) + first_row}: has no id in column {roles.id}")
    rows = Rows(
        name,
        first_row,
        ids,
        None,
        texts[roles.label] if roles.label else None,
        texts[roles.split] if roles.split else None,
        texts[roles.group] if roles.group else None,
        roles.features,
        np.ascontiguousarray(values),
    )
    if roles.time is None:
        return rows
    time = _times(rows, frame[roles.time], roles.time)
    return replace(rows, time=time)


def _texts(name: str, column: "pd.Series[Any]", title: str) -> Texts:
    categories = [str(text) for text in column.cat.categories]
    refuse_odd_texts(name, title, categories)
    return Texts(column.cat.codes.to_numpy().astype(np.int64), categories)


def _times(rows: Rows, column: "pd.Series[Any]", title: str) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return times as numbers: numbers as they are, dates in microseconds."""
    texts = pd.Series(column.cat.categories.astype(str))
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.isna().any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # pandas also reads "now" and "today".
            dates = pd.to_datetime(texts.where(texts.str.match("[0-9]")), format="ISO8601", errors="coerce", utc=True)
        if dates.isna().any():
            odd_code = int(np.argmax((numbers.isna() if dates.isna().all() else dates.isna()).to_numpy()))
            row = int(np.argmax(column.cat.codes.to_numpy() == odd_code))
            raise ConfigError(
                f"{rows.describe(row)}, column {title}: {quote(texts[odd_code])} is neither a number nor a date such "
                "as 2026-01-31T12:00:00"
            )
        # pandas chooses the unit by the dates of a part.
        numbers = dates.dt.as_unit("us").astype("int64")
    if np.isinf(numbers.to_numpy(np.float64)).any():
        row = int(np.argmax(np.isinf(numbers.to_numpy(np.float64))[column.cat.codes.to_numpy()]))
        raise ConfigError(f"{rows.describe(row)}, column {title}: the time is infinite")
    times: NDArray[Any] = numbers.to_numpy()[column.cat.codes.to_numpy()]
    return times


def _refuse_text(path: Path, roles: Roles) -> None:
    """Find the first value of a feature that is no number.

    Raises:
        ConfigError: naming it.
    """
    with path.open("rb") as file, closing(read_parts(path.name, path, file, None, lambda _: roles, 2**16)) as parts:
        for _ in parts:
            pass


class _explained:
    """Convert the errors of pandas to ConfigError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ConfigError):
            return
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(
                f"{self._name}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            ) from None
        if isinstance(error, pd.errors.ParserWarning):
            raise ConfigError(f"{self._name}: a row has more fields than there are columns") from None
        if isinstance(error, MemoryError):
            raise ConfigError(f"{self._name}: is larger than the memory of this machine") from None
        if isinstance(error, OSError):
            raise ConfigError(f"{self._name}: cannot be read ({error.strerror})") from None
        if isinstance(error, ValueError | csv.Error):
            raise ConfigError(
                f"{self._name}: cannot be read as a table ({reason(error).removeprefix(_OF_PANDAS)})"
            ) from None
