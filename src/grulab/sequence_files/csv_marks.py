"""Check the bytes of a CSV file for what pandas reads otherwise than it is written.

A quote begins a field or ends it: elsewhere pandas reads it as some text, or joins what is beside it, and an
unbalanced one takes the next rows for text. What a short row lacks, pandas takes for empty. At NUL it cuts a field
off.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError

_BOM = b"\xef\xbb\xbf"
_BLOCK = 2**20
# What a blank line may hold.
_SPACE = b" \t\r\n"


class Marks:
    """The bytes of a file, block by block, with its line of names, which is row 1.

    Args:
        name: of the file, for the messages.
        separator: of its fields.
        width: the number of fields in a row.
    """

    def __init__(self, name: str, separator: str, width: int) -> None:
        self._name = name
        self._separator = separator.encode()
        self._width = width
        self._beside = np.frombuffer(self._separator + b'\n\r"', np.uint8)
        # The last byte is looked at with the next block, which shows what comes after it.
        self._last = b""
        self._before = b"\n"
        self._has_begun = self._is_open = self._row_has_text = False
        self._separators = 0
        self._row = 1
        self._opened_in = 0

    def feed(self, block: bytes) -> None:
        """Check a block.

        Raises:
            ConfigError: naming the row with an odd quote, a NUL byte, or too few or too many fields.
        """
        if not self._has_begun and block:
            self._has_begun = True
            block = block.removeprefix(_BOM)
        block = self._last + block
        if block:
            self._look_at(block[:-1], block[-1:])
            self._last = block[-1:]

    def end(self) -> None:
        """Check the last byte and the last row.

        Raises:
            ConfigError: as :meth:`feed`, or if a quote is open.
        """
        last, self._last = self._last, b""
        self._look_at(last, b"\n")
        if self._is_open:
            raise ConfigError(f"{self._name}: row {self._opened_in}: a quote is opened and never closed")
        if self._row_has_text:
            self._refuse_width(self._row, self._separators)

    def _look_at(self, block: bytes, after: bytes) -> None:
        if not block:
            return
        around = np.frombuffer(self._before + block + after, np.uint8)
        inner = around[1:-1]
        ends = inner == ord("\n")
        if b"\r" in block:
            # Old Macs ended lines so.
            ends |= (inner == ord("\r")) & (around[2:] != ord("\n"))
        line_ends, separators = np.flatnonzero(ends), np.flatnonzero(inner == self._separator[0])
        quotes = np.flatnonzero(inner == ord('"')) if b'"' in block else np.empty(0, np.int64)
        if len(quotes) or self._is_open:
            line_ends, separators = (
                places[(np.searchsorted(quotes, places) + self._is_open) % 2 == 0]
                for places in (line_ends, separators)
            )
        rows, row_has_text = self._count_fields(block, line_ends, separators)
        if b"\0" in block:
            row = rows[np.searchsorted(line_ends, block.index(b"\0"))]
            raise ConfigError(
                f"{self._name}: row {row}: has a NUL byte: it is damaged, or not UTF-8; save it as UTF-8"
            )
        if len(quotes):
            self._look_at_quotes(around, quotes, rows[np.searchsorted(line_ends, quotes)])
        self._row, self._row_has_text = int(rows[-1]), row_has_text
        self._before = block[-1:]

    def _count_fields(
        self, block: bytes, line_ends: NDArray[np.int64], separators: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], bool]:
        """Return the number of the row on each line of a block, and whether its last line has begun.

        Raises:
            ConfigError: if a row has another number of fields than it should.
        """
        counts = np.diff(np.searchsorted(separators, line_ends), prepend=0)
        if len(counts):
            counts[0] += self._separators
        starts = np.append(0, line_ends + 1)
        is_row = np.ones(len(starts), bool)
        for place in np.flatnonzero(counts != self._width - 1).tolist():
            # pandas passes over blank lines.
            is_row[place] = bool(block[starts[place] : line_ends[place]].strip(_SPACE)) or bool(counts[place])
            if place == 0:
                is_row[0] |= self._row_has_text
        rows = self._row + np.append(0, np.cumsum(is_row[:-1]))
        if (odd := (counts != self._width - 1) & is_row[:-1]).any():
            place = int(np.argmax(odd))
            self._refuse_width(int(rows[place]), int(counts[place]))
        has_text = bool(block[starts[-1] :].strip(_SPACE)) or (self._row_has_text and not len(line_ends))
        rest = len(separators) - (int(np.searchsorted(separators, line_ends[-1])) if len(line_ends) else 0)
        self._separators = rest + (0 if len(line_ends) else self._separators)
        return rows, has_text or bool(self._separators)

    def _refuse_width(self, row: int, separators: int) -> None:
        if separators != self._width - 1:
            hint = "is it cut off?" if separators < self._width - 1 else "a field with a separator in it needs quotes"
            raise ConfigError(
                f"{self._name}: row {row} has {separators + 1} fields, and there are {self._width} columns; {hint}"
            )

    def _look_at_quotes(self, around: NDArray[np.uint8], quotes: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        opens = np.arange(len(quotes)) % 2 == int(self._is_open)
        # Before one that opens, after one that closes. Of two together in a field, the one closes, the other opens.
        is_odd = ~np.isin(around[np.where(opens, quotes, quotes + 2)], self._beside)
        if is_odd.any():
            raise ConfigError(
                f"{self._name}: row {rows[np.argmax(is_odd)]}: a quote stands inside a field, or one before it is "
                "not closed; a field with a quote in it needs quotes around it, and two in place of the one"
            )
        if opens.any():
            self._opened_in = int(rows[opens][-1])
        self._is_open ^= bool(len(quotes) % 2)


def refuse_odd_marks(path: Path, separator: str, width: int) -> None:
    """Check a file; see :class:`Marks`.

    Raises:
        ConfigError: as :meth:`Marks.feed` and :meth:`Marks.end`.
        OSError: if it cannot be read.
    """
    marks = Marks(path.name, separator, width)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            marks.feed(block)
    marks.end()
