"""Repair TensorBoard's event files after a crash: truncate them to the step of a checkpoint."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from grulab.config_error import ConfigError
from grulab.internals.tensorboard import (
    FILE_VERSION,
    DecodeError,
    Event,
    RawEventFileLoader,
    RecordWriter,
    custom_scalar_metadata,
    hparams_metadata,
)
from grulab.system.regular_file import create, open_regular

_MAX_BYTES = 2**30
# TensorBoard reads a folder's files in the order of their names; a new writer's name has the time in place of zeros.
_FILE_NAME = "events.out.tfevents.0000000000.resumed"
# A resumed run writes the records of these plugins again.
_OF_THE_WHOLE_RUN = {hparams_metadata.PLUGIN_NAME, custom_scalar_metadata.PLUGIN_NAME}


def cut_back(folder: Path, curves: Mapping[tuple[str, int], float]) -> None:
    """Merge a run's event files into one that ends at a checkpoint's step and has every point of its curves.

    ``purge_step`` would only suffice for complete files whose names sort in the order of writing. The last record of
    a killed run is truncated, which hides the records after it in the same file; and the names give the order only to
    the second, by the clock of one machine.

    Args:
        folder: the folder of the event files; it may be missing.
        curves: the value of each (tag, step) in the checkpoint. Points that the files lack are added; points of other
            tags are kept up to the last of these steps, except test results, which belong to the end of a run. If
            ``curves`` is empty, all points are removed.
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
        # A file without a record was written by another program, or is damaged: it is not removed.
        if events:
            read.append(file)
        for event in events:
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                stays = (value.tag, event.step) in curves if value.tag in tags else event.step <= last_step
                if stays and plugin not in _OF_THE_WHOLE_RUN and not value.tag.startswith("test/"):
                    single = Event(wall_time=event.wall_time, step=event.step)
                    single.summary.value.append(value)
                    # After a crash in this function the old files and the new one hold the same point twice.
                    kept[value.tag, event.step] = single
    for (tag, step), number in curves.items():
        if (tag, step) not in kept:
            kept[tag, step] = Event(wall_time=time.time(), step=step)
            kept[tag, step].summary.value.add(tag=tag, simple_value=number)
    folder.mkdir(exist_ok=True)
    temporary = folder / "cutting"
    with create(temporary) as stream:
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
    """Yield the events of a file up to its end or to the first damaged record.

    Raises:
        ConfigError: if it is not a regular file of a possible size.
    """
    try:
        open_regular(file, _MAX_BYTES).close()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; remove it") from None
    # The reader warns about truncated records, which this module repairs.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    for record in RawEventFileLoader(str(file)).Load():
        try:
            yield Event.FromString(record)
        except DecodeError:
            # Its checksum is right, but it is not an event.
            return
