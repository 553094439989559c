"""Repair of TensorBoard's event files after a crash: cut back to the state that a checkpoint holds."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from grulab.internals.tensorboard import (
    FILE_VERSION,
    Event,
    RawEventFileLoader,
    RecordWriter,
    custom_scalar_metadata,
    hparams_metadata,
)

# TensorBoard reads a folder's files in the order of their names, and a new writer's begins with the time.
_FILE_NAME = "events.out.tfevents.0000000000.resumed"
# Written anew when a run goes on.
_OF_THE_WHOLE_RUN = {hparams_metadata.PLUGIN_NAME, custom_scalar_metadata.PLUGIN_NAME}


def cut_back(folder: Path, curves: Mapping[tuple[str, int], float]) -> None:
    """Make a run's event files one that ends where a checkpoint does, with every point of its curves.

    ``purge_step`` would do for files that end well and lie in the order in which they were written. A killed run's
    last record is cut, which hides what follows it in the same file; and names tell the order only to the second and
    by one clock.

    Args:
        folder: of the event files; it may be missing.
        curves: the value of each (tag, step) in the checkpoint. Points that the files lack are drawn again; points of
            other tags stay up to the last of these steps, but for test results: the test comes at the end. Without
            any, all is cut away.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files and not curves:
        return
    last_step = max((step for _, step in curves), default=-1)
    tags = {tag for tag, _ in curves}
    kept: dict[tuple[str, int], Event] = {}
    read = []
    for file in files:
        events = list(_events(file))
        # A file without a record was written by another program, or was spoilt.
        if events:
            read.append(file)
        for event in events:
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                stays = (value.tag, event.step) in curves if value.tag in tags else event.step <= last_step
                if stays and plugin not in _OF_THE_WHOLE_RUN and not value.tag.startswith("test/"):
                    single = Event(wall_time=event.wall_time, step=event.step)
                    single.summary.value.append(value)
                    # A crash while cutting leaves the old files beside the new one: the same point twice.
                    kept[value.tag, event.step] = single
    for (tag, step), number in curves.items():
        if (tag, step) not in kept:
            kept[tag, step] = Event(wall_time=time.time(), step=step)
            kept[tag, step].summary.value.add(tag=tag, simple_value=number)
    folder.mkdir(exist_ok=True)
    temporary = folder / "cutting"
    with temporary.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
        for event in sorted(kept.values(), key=lambda event: event.step):
            writer.write(event.SerializeToString())
        writer.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / _FILE_NAME)
    for file in read:
        if file.name != _FILE_NAME:
            file.unlink()


def _events(file: Path) -> Iterator[Event]:
    """Yield the events of a file up to its end or to the first record that is damaged."""
    # The reader warns of a record that was cut: the case that is repaired here.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    for record in RawEventFileLoader(str(file)).Load():
        yield Event.FromString(record)
