"""The hyper-parameters of a run, and how it ended, for TensorBoard's HParams tab."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2

from grulab.config.same_run import flatten
from grulab.internals.tensorboard import (
    FILE_VERSION,
    Event,
    RecordWriter,
    Summary,
    hparams_api,
    hparams_data,
    hparams_metadata,
)
from grulab.run_folder import paths

_STATUS = {
    "done": hparams_api.STATUS_SUCCESS,
    "failed": hparams_api.STATUS_FAILURE,
    "interrupted": hparams_api.STATUS_FAILURE,
}


def session_start(config: Mapping[str, Any], name: str) -> Summary:
    """Return the record of a run's hyper-parameters.

    TensorBoard takes one arbitrary run's experiment record as everybody's (tensorboard#6965); left out, it makes the
    columns from all runs together. So only the session's own record is written.

    Args:
        config: the run's configuration, nested.
        name: of the run; see :func:`session_name`.
    """
    values = {key: _value(value) for key, value in flatten(config).items()}
    start = hparams_data.SessionStartInfo(hparams=values, group_name=name, start_time_secs=time.time())
    return _record(hparams_metadata.SESSION_START_INFO_TAG, hparams_data.HParamsPluginData(session_start_info=start))


def session_end(status: str) -> Summary:
    """Return the record of how a run ended: "done", "failed" or "interrupted"."""
    end = hparams_data.SessionEndInfo(status=_STATUS[status], end_time_secs=time.time())
    return _record(hparams_metadata.SESSION_END_INFO_TAG, hparams_data.HParamsPluginData(session_end_info=end))


def write_session_end(run_dir: Path, status: str) -> None:
    """Write how a run ended that could not do so itself, in a file of its own: the run's may be cut."""
    folder = run_dir / paths.TENSORBOARD
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    # TensorBoard reads a folder's files in the order of their names, and the run's may have begun in this second.
    with (folder / f"events.out.tfevents.{int(now) + 1:010d}.ended").open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version=FILE_VERSION).SerializeToString())
        writer.write(Event(wall_time=now, summary=session_end(status)).SerializeToString())
        writer.flush()


def session_name(run_dir: Path) -> str:
    """Return the name of a run in the HParams tab: unique, and what differs comes first."""
    return " / ".join(reversed(run_dir.resolve().parts[-3:]))


def _record(tag: str, data: hparams_data.HParamsPluginData) -> Summary:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)])


def _value(value: Any) -> struct_pb2.Value:
    """Keep booleans and numbers what they are, so that TensorBoard sorts and filters them; write the rest out."""
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))
