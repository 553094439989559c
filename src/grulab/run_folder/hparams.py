"""The hyper-parameters and the final status of a run, for TensorBoard's HParams tab."""

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
from grulab.system.regular_file import create

_STATUS = {
    "done": hparams_api.STATUS_SUCCESS,
    "failed": hparams_api.STATUS_FAILURE,
    "interrupted": hparams_api.STATUS_FAILURE,
}


def session_start(config: Mapping[str, Any], name: str) -> Summary:
    """Return the record of a run's hyper-parameters.

    TensorBoard applies the experiment record of one arbitrary run to all runs (tensorboard#6965). Without that record
    it builds the columns from all runs. So only the session's record is written.

    Args:
        config: the run's configuration, nested.
        name: the name of the run; see :func:`session_name`.
    """
    values = {key: _value(value) for key, value in flatten(config).items()}
    start = hparams_data.SessionStartInfo(hparams=values, group_name=name, start_time_secs=time.time())
    return _record(hparams_metadata.SESSION_START_INFO_TAG, hparams_data.HParamsPluginData(session_start_info=start))


def session_end(status: str) -> Summary:
    """Return the record of a run's final status: "done", "failed" or "interrupted"."""
    end = hparams_data.SessionEndInfo(status=_STATUS[status], end_time_secs=time.time())
    return _record(hparams_metadata.SESSION_END_INFO_TAG, hparams_data.HParamsPluginData(session_end_info=end))


def write_session_end(run_dir: Path, status: str) -> None:
    """Write the final status of a run that did not write it itself, to a new file: the run's may be truncated."""
    folder = run_dir / paths.TENSORBOARD
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    # TensorBoard reads the files in the order of their names, and the run's own file may have begun in this second.
    with create(folder / f"events.out.tfevents.{int(now) + 1:010d}.ended") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version=FILE_VERSION).SerializeToString())
        writer.write(Event(wall_time=now, summary=session_end(status)).SerializeToString())
        writer.flush()


def session_name(run_dir: Path) -> str:
    """Return a run's unique name in the HParams tab: three parts of its path, the most specific part first."""
    return " / ".join(reversed(run_dir.resolve().parts[-3:]))


def _record(tag: str, data: hparams_data.HParamsPluginData) -> Summary:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)])


def _value(value: Any) -> struct_pb2.Value:
    """Keep the type of booleans and numbers, so that TensorBoard sorts and filters them; convert the rest to text."""
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))
