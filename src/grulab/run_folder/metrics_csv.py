"""metrics.csv: a row for every epoch of a run."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from grulab.run_folder import paths
from grulab.run_folder.atomic import write_atomically

CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")
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
    path = run_dir / paths.METRICS
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def read_column(run_dir: Path, name: str) -> list[float]:
    """Return the values of a column so far; [] if the file is missing or a row is being written."""
    try:
        with (run_dir / paths.METRICS).open(newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):
        return []
