"""TensorBoard curves of a sweep: for each configuration the mean over its seeds, with the spread."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from grulab.internals.tensorboard import FILE_VERSION, Event, RecordWriter, Summary, layout_of_margins
from grulab.report.leaderboard import Leaderboard
from grulab.report.short_names import short_names
from grulab.report.statistics import bounds
from grulab.run_folder import paths
from grulab.system.atomic import write_atomically
from grulab.system.regular_file import refuse_odd_kinds

_TAGS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
_LOW, _HIGH = "{}_low", "{}_high"
_FILE = "events.out.tfevents.means"


def write_mean_curves(board: Leaderboard) -> None:
    """Write the curves to ``means/<configuration>`` in the sweep's folder.

    Raises:
        ConfigError: if something else is in their place.
    """
    folder = board.folder / paths.MEANS
    rows = [row for _, row in board.ranking.iterrows()]
    keys = [*board.swept, *board.tuned]
    names, _ = short_names([{key: row[key] for key in keys} for row in rows])
    _remove_others(folder, names)
    for name, row in zip(names, rows, strict=True):
        tables = board.tables(row)
        if not tables:
            continue
        path = folder / name / _FILE
        refuse_odd_kinds([path], [folder, folder / name])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _events(pd.concat(tables)))


def _remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove curves of names that no configuration has any more, and nothing else."""
    refuse_odd_kinds([], [folder])
    for path in folder.iterdir() if folder.is_dir() else []:
        if path.name not in names and not path.is_symlink() and [child.name for child in path.glob("*")] == [_FILE]:
            (path / _FILE).unlink()
            path.rmdir()


def _events(table: pd.DataFrame) -> bytes:
    stream, now = io.BytesIO(), time.time()
    writer = RecordWriter(stream)
    writer.write(Event(wall_time=now, file_version=FILE_VERSION).SerializeToString())
    charts = {tag: (tag, _LOW.format(tag), _HIGH.format(tag)) for tag in _TAGS}
    layout = layout_of_margins("mean over seeds", charts)
    writer.write(Event(wall_time=now, summary=layout).SerializeToString())
    for _, epoch in table.groupby("epoch"):
        values: list[tuple[str, float]] = []
        for tag in _TAGS:
            low, high = bounds(epoch[tag], is_share=tag.endswith("accuracy"))
            values += zip(charts[tag], (float(epoch[tag].mean()), low, high), strict=True)
        known = [Summary.Value(tag=tag, simple_value=value) for tag, value in values if np.isfinite(value)]
        event = Event(wall_time=now, step=int(epoch["step"].iloc[0]), summary=Summary(value=known))
        writer.write(event.SerializeToString())
    writer.flush()
    return stream.getvalue()
