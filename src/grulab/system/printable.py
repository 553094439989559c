"""Texts that come from elsewhere, such as files and command lines, in one line of a terminal."""

import unicodedata

# Control characters, halves of surrogate pairs (bytes outside UTF-8), and breaks of lines and paragraphs.
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")
# They change the order in which the rest of a line is shown.
_TURNS_TEXT_AROUND = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Return a text in one line, with line breaks, control characters and bytes outside UTF-8 as escapes."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in _NOT_SHOWN or char in _TURNS_TEXT_AROUND else char
        for char in text
    )
