"""TensorBoard's event files, cut back to what a checkpoint stands for."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

# TensorBoard reads a folder's files in the order of their names, and a new writer's begins with the time.
_FILE_NAME = "events.out.tfevents.0000000000.resumed"
# Written anew when a run goes on.
_OF_THE_WHOLE_RUN = {hparams_metadata.PLUGIN_NAME, layout_metadata.PLUGIN_NAME}


def cut_back(folder: Path, last_step: int) -> None:
    """Make a run's event files one, without what came after a step.

    ``purge_step`` would do for files that end well and lie in the order in which they were written. A killed run's
    last record is cut, which hides what follows it in the same file; and names tell the order only to the second and
    by one clock.

    Args:
        folder: of the event files; it may be missing.
        last_step: of the last epoch that stays; 0 if none does, and nothing is kept. Test results go, whatever their
            step: the test comes at the end.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if last_step == 0:
        for file in files:
            file.unlink()
        return
    kept: dict[tuple[str, int], Event] = {}
    for file in files:
        for event in _events(file):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if event.step <= last_step and plugin not in _OF_THE_WHOLE_RUN and not value.tag.startswith("test/"):
                    single = Event(wall_time=event.wall_time, step=event.step)
                    single.summary.value.append(value)
                    # A crash while cutting leaves the old files beside the new one: the same point twice.
                    kept[value.tag, event.step] = single
    temporary = folder / "cutting"
    with temporary.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=0, file_version="brain.Event:2").SerializeToString())
        for event in kept.values():
            writer.write(event.SerializeToString())
        writer.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / _FILE_NAME)
    for file in files:
        if file.name != _FILE_NAME:
            file.unlink()


def _events(file: Path) -> Iterator[Event]:
    """Yield the events of a file up to its end or to the first record that is damaged."""
    # The reader warns of a record that was cut; that is what we are here for.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    for record in RawEventFileLoader(str(file)).Load():
        yield Event.FromString(record)
