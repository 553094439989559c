"""metrics.csv: a row for every epoch of a run."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grulab.run_folder import paths
from grulab.system.atomic import write_atomically
from grulab.system.regular_file import MAX_TABLE_BYTES, read_regular

if TYPE_CHECKING:
    import pandas as pd

CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/macro_f1", "lr")
# Beyond any metric, step or second.
_LARGEST = 1e18
COLUMNS = ("epoch", "step", *CURVES, "seconds")


def append_row(run_dir: Path, row: Mapping[str, float]) -> None:
    """Append the row of an epoch."""
    with (run_dir / paths.METRICS).open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, COLUMNS).writerow(row)


def write_rows(run_dir: Path, rows: list[dict[str, float]]) -> None:
    """Write the whole file again, to replace a file that a crash or a person may have changed."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(run_dir / paths.METRICS, text.getvalue())


def count_rows(run_dir: Path) -> int:
    """Return the number of epochs in the file; 0 if there is no file."""
    try:
        return max(0, read_regular(run_dir / paths.METRICS, MAX_TABLE_BYTES).count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def read_table(run_dir: Path) -> "pd.DataFrame | None":
    """Return the whole file, one row an epoch; None if it is missing, or not as a run writes it."""
    # pandas is not needed for a run's checks. Its reader takes ten times as long for a file of a few rows.
    import pandas as pd

    try:
        text = read_regular(run_dir / paths.METRICS, MAX_TABLE_BYTES).decode()
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [[float(value) for value in line] for line in lines]
    # The reader's errors are of many kinds.
    except (OSError, ValueError, csv.Error):
        return None
    is_whole = tuple(header) == COLUMNS and all(len(row) == len(COLUMNS) for row in rows)
    # What is not finite is not below it either.
    if not is_whole or not all(abs(value) < _LARGEST for row in rows for value in row):
        return None
    return pd.DataFrame(np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS)), columns=list(COLUMNS))


def read_column(run_dir: Path, name: str) -> list[float]:
    """Return the values of a column so far; [] if the file is missing or a row is being written."""
    try:
        text = read_regular(run_dir / paths.METRICS, MAX_TABLE_BYTES).decode()
        return [float(row[name]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return []
