"""A run's TensorBoard folder: one curve a tag, charts that compare, and hyper-parameters."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary as SummaryProto
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from grulab.config.same_run import flatten

FOLDER = "tensorboard"
CHANCE = "task/chance"
CEILING = "task/ceiling"

# Train and validation in one chart, with what is possible on either side (the Custom Scalars tab).
_LAYOUT = {
    "learning": {
        "accuracy": ["Multiline", ["^train/accuracy$", "^val/accuracy$", f"^{CHANCE}$", f"^{CEILING}$"]],
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
    }
}
_STATUS = {
    "done": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "interrupted": api_pb2.STATUS_FAILURE,
}


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger in one fixed folder, with hyper-parameters that TensorBoard can read.

    Args:
        run_dir: the run's folder; the event files go into ``tensorboard/`` in it.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, name=FOLDER, version="", default_hp_metric=False)

    def begin(self, config: Mapping[str, Any], name: str) -> None:
        """Write what belongs to the whole run: the layout of the charts and the hyper-parameters.

        TensorBoard takes one arbitrary run's experiment record as everybody's (tensorboard#6965); left out, it makes
        the columns from all runs together. So only the session's own record is written.
        """
        self.experiment.add_custom_scalars(_LAYOUT)
        values = {key: _value(value) for key, value in flatten(config).items()}
        start = plugin_data_pb2.SessionStartInfo(hparams=values, group_name=name, start_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        self.experiment.file_writer.add_summary(_session(metadata.SESSION_START_INFO_TAG, data))

    def end(self, status: str) -> None:
        """Write how the run ended ("done", "failed" or "interrupted") and close the file."""
        self.experiment.file_writer.add_summary(_session_end(status))
        self.experiment.close()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning calls this at every start of a fit; :meth:`begin` writes them once."""

    def save(self) -> None:
        """Flush. Lightning would write hparams.yaml as well; the run has .hydra/config.yaml."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Flush. Lightning closes the file after each of fit and test; :meth:`end` does."""
        self.experiment.flush()


def record_end(run_dir: Path, status: str) -> None:
    """Write how a run ended that could not do so itself, in a file of its own: the run's may be cut."""
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    # TensorBoard reads a folder's files in the order of their names, and the run's may have begun in this second.
    with (folder / f"events.out.tfevents.{int(now) + 1:010d}.ended").open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        writer.write(Event(wall_time=now, summary=_session_end(status)).SerializeToString())
        writer.flush()


def _session_end(status: str) -> SummaryProto:
    end = plugin_data_pb2.SessionEndInfo(status=_STATUS[status], end_time_secs=time.time())
    return _session(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _session(tag: str, data: plugin_data_pb2.HParamsPluginData) -> SummaryProto:
    value = SummaryProto.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
    return SummaryProto(value=[value])


def session_name(run_dir: Path) -> str:
    """Return the name of a run in the HParams tab: unique, and what differs comes first."""
    return " / ".join(reversed(run_dir.resolve().parts[-3:]))


def _value(value: Any) -> struct_pb2.Value:
    """Keep booleans and numbers what they are, so that TensorBoard sorts and filters them; write the rest out."""
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))
