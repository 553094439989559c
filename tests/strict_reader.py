"""What files hold, read by grulab and by a strict reader, and the check that both agree or grulab refuses."""

import csv
import dataclasses
import functools
import io
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grulab import compose
from grulab.config_error import ConfigError
from grulab.sequence_files.columns import Columns
from grulab.sequence_files.stream import Stream
from grulab.tasks import registry
from grulab.tasks.base import DataConfig
from grulab.tasks.files import Files
from grulab.tasks.registry import build_task

# id -> its label, and its rows of values.
Read = dict[str, tuple[str, list[tuple[float, ...]]]]
FEATURES = ("a", "b")
MISSING = {"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"}


@functools.cache
def files_config() -> DataConfig:
    """Return the configuration of a task over a file, without the file."""
    # With a hash in place of a file, nothing is read.
    config = compose(["data=files", f"data.content={'0' * 32}"]).data
    return dataclasses.replace(config, content=None)  # type: ignore[call-arg]


def read(path: Path, **changes: Any) -> Files:
    """Return the task over a file."""
    # The registry keeps tasks by their content, of which an id is no part.
    registry._BUILT.clear()
    task = build_task(dataclasses.replace(files_config(), path=str(path), **changes).located())
    assert isinstance(task, Files)
    return task


def read_stream(path: Path, features: tuple[str, ...] = FEATURES) -> Read:
    """Return what a file holds, read as for a prediction."""
    columns = Columns("id", "time", "label", "split", "group", features)
    found: Read = {}
    for part in Stream(str(path), columns).parts():
        start = 0
        for place, (name, length) in enumerate(zip(part.ids, part.lengths.tolist(), strict=True)):
            label = "" if part.labels is None else part.labels[place]
            found[name] = (label, [tuple(row) for row in part.values[start : start + length].tolist()])
            start += length
    return found


def contents(task: Files) -> Read:
    """Return what the file of a task holds."""
    flat, found, start = task.flat, Read(), 0
    for name, code, length in zip(flat.ids.tolist(), flat.classes.tolist(), flat.lengths.tolist(), strict=True):
        found[name] = (flat.class_names[code], [tuple(row) for row in flat.values[start : start + length].tolist()])
        start += length
    return found


def refused(name: str, action: Callable[[], Any]) -> Any:
    """Return the result of an action, or None if it refuses the file in one line that names it."""
    try:
        return action()
    except ConfigError as error:
        message = str(error)
        assert not [mark for mark in message if unicodedata.category(mark) in ("Cc", "Zl", "Zp", "Cs")], message
        assert name in message or "data.path" in message, message
        # What no reader had foreseen is converted by the registry.
        assert not message.startswith("data.task="), message
        return None


def strictly(raw: bytes, separator: str, features: tuple[str, ...] = FEATURES) -> Read | None:
    """Read a table as the book says, row by row; None if that cannot be done."""
    try:
        lines = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=separator, strict=True)
        header, *rows = [line for line in lines if len(line) > 1 or "".join(line).strip()]
        if len(set(header)) < len(header):
            return None
        timed: dict[str, tuple[str, list[tuple[float, tuple[float, ...]]]]] = {}
        for row in rows:
            field = dict(zip(header, row, strict=True))
            label, steps = timed.setdefault(field["id"], (field["label"], []))
            if label != field["label"]:
                return None
            values = (math.nan if field[key] in MISSING else float(field[key]) for key in features)
            steps.append((float(field["time"]), tuple(values)))
        return {key: (label, [row for _, row in sorted(steps)]) for key, (label, steps) in timed.items()}
    except (ValueError, KeyError, csv.Error):
        return None


def check_table(path: Path, raw: bytes, features: tuple[str, ...] = FEATURES, /, **changes: Any) -> Files | None:
    """Write a table, and check that it is refused or read as the book says; return its task if it is read."""
    path.write_bytes(raw)
    expected = strictly(raw, "\t" if path.suffix == ".tsv" else ",", features)
    task: Files | None = refused(path.name, lambda: read(path, **changes))
    for found in (None if task is None else contents(task), refused(path.name, lambda: read_stream(path, features))):
        if found:
            assert expected is not None
            assert {k: str(v) for k, v in found.items()} == {k: str(v) for k, v in expected.items()}
    return task
