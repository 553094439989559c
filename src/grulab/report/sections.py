"""A report as titled tables, for the terminal and for Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Section:
    """A title, a paragraph, and perhaps a table whose cells are text already."""

    title: str
    text: str
    table: pd.DataFrame | None = None


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print the report on a terminal."""
    for section in sections:
        console.print(f"\n[bold]{section.title}[/bold]")
        console.print(section.text, highlight=False, markup=False)
        if section.table is not None:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for column in section.table.columns:
                # A bar has no header, and means nothing in two lines.
                table.add_column(str(column), overflow="fold", no_wrap=not str(column).strip())
            for row in section.table.itertuples(index=False):
                table.add_row(*map(str, row))
            console.print(table, highlight=False, markup=False)


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
    rows += [[str(cell).replace("|", "\\|") for cell in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
