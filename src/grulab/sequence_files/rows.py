"""The rows of a long table, as the readers of CSV and Parquet return them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.columns import Roles
from grulab.sequence_files.flat import quote, shown

# What a column's name, an id or a label may not hold: it would not stay in its line or cell. Control characters,
# halves of surrogate pairs, breaks of lines and paragraphs, and what turns the order of a text around.
_ODD = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")

# A longer text is hardly an id or a label; and an array of texts has room for the longest in every place.
MAX_CHARACTERS = 1000

Choose = Callable[[list[str]], Roles]


class Texts(NamedTuple):
    """A column of texts: (rows,) int64 positions in ``names``, which are different."""

    codes: NDArray[np.int64]
    names: list[str]


@dataclass(frozen=True)
class Rows:
    """The columns of a table that have a use, in the order of the file.

    Attributes:
        name: of the file.
        first_row: number of the first row of data; a line of names counts as row 1.
        id, label, split, group: the columns of texts, or None.
        time: (rows,) int64 or float64, or None.
        features: the names of the columns of ``values``.
        values: (rows, features) float64; missing values are NaN.
    """

    name: str
    first_row: int
    id: Texts
    time: NDArray[np.int64] | NDArray[np.float64] | None
    label: Texts | None
    split: Texts | None
    group: Texts | None
    features: list[str]
    values: NDArray[np.float64]

    def row(self, index: int) -> str:
        """Return a row in words: ``row 2``."""
        return f"row {index + self.first_row}"

    def describe(self, index: int) -> str:
        """Return where a row is: ``data.csv: row 2 (id 1)``."""
        return f"{self.name}: {self.row(index)} (id {shown(self.id.names[int(self.id.codes[index])])})"


def refuse_odd_texts(name: str, column: str | None, texts: Iterable[str]) -> None:
    """Check that no text holds a line break, as where a quote is unbalanced, or a control character.

    Args:
        name: of the file, for the message.
        column: that has the texts; None if they are the names of the columns.
        texts: to be checked.

    Raises:
        ConfigError: naming the text.
    """
    for text in texts:
        if len(text) > MAX_CHARACTERS:
            place = "a column's name" if column is None else f"column {quote(column)}"
            raise ConfigError(f"{name}: {place} holds a text of {len(text):,} characters: {quote(text)}")
        if _ODD.search(text):
            place = "a column's name" if column is None else f"column {quote(column)}"
            what = "a line break; is a quote unbalanced?"
            if not ("\n" in text or "\r" in text):
                what = "a control character; leave it out"
            raise ConfigError(f"{name}: {place} holds {quote(text)}: {what}")
