"""Sections of a report, with a title, paragraphs and a table, for the terminal and for Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_FILE = 120
# Wider than any table, to measure the width that a table needs.
_MEASURE = Console(width=10_000)


@dataclass(frozen=True)
class Section:
    """A title, paragraphs, and optionally a table whose cells are already formatted as text.

    On a narrow terminal the columns in ``dispensable`` are left out, beginning with the last one.
    """

    title: str
    text: str
    table: pd.DataFrame | None = None
    dispensable: tuple[str, ...] = ()


def report_console() -> Console:
    """Return a console for reports: as wide as the terminal, or 120 columns wide if the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_FILE)


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print the report on a terminal."""
    for section in sections:
        console.print(Text(f"\n{section.title}", style="bold"))
        for paragraph in section.text.split("\n\n"):
            # A paragraph without a full stop is a path or a command: not wrapped, so that it can be copied.
            console.print(paragraph, highlight=False, markup=False, soft_wrap=not paragraph.endswith("."))
        if section.table is None:
            continue
        shown = section.table
        dispensable = [column for column in section.dispensable if column in shown]
        while dispensable and Measurement.get(_MEASURE, _MEASURE.options, _rich_table(shown)).maximum > console.width:
            shown = shown.drop(columns=dispensable.pop())
        console.print(_rich_table(shown), highlight=False, markup=False)


def _rich_table(cells: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in cells.columns:
        # A column of bars has no header, and a bar must not be wrapped.
        table.add_column(str(column), overflow="fold", no_wrap=not str(column).strip())
    for row in cells.itertuples(index=False):
        table.add_row(*map(str, row))
    return table


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.title}", section.text]
        if section.table is not None:
            blocks.append(_markdown_table(section.table))
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[_escaped(str(cell)) for cell in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _escaped(cell: str) -> str:
    """Return a cell without what Markdown takes for markup: the name of a class may be anything."""
    return re.sub(r"([|\[\]<>`])", r"\\\1", cell)
