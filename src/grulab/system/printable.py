"""Texts that come from elsewhere, such as files and command lines, in one line of a terminal."""

import unicodedata

# Control characters, halves of surrogate pairs (bytes outside UTF-8), and breaks of lines and paragraphs.
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """Return a text in one line, with line breaks, control characters and bytes outside UTF-8 as escapes."""
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in _NOT_SHOWN else char for char in text)
