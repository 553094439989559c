"""Private parts of TensorBoard, read in version 2.21.0: classes and modules to write and read its event files."""

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.hparams import api_pb2 as hparams_api
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_data
from tensorboard.summary.writer.record_writer import RecordWriter

# The version in the first record of every event file.
FILE_VERSION = "brain.Event:2"

__all__ = [
    "FILE_VERSION",
    "DecodeError",
    "Event",
    "RawEventFileLoader",
    "RecordWriter",
    "Summary",
    "custom_scalar_metadata",
    "hparams_api",
    "hparams_data",
    "hparams_metadata",
]
