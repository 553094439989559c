"""Private parts of TensorBoard, read in version 2.21.0: classes and modules to write and read its event files."""

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.hparams import api_pb2 as hparams_api
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_data
from tensorboard.summary.writer.record_writer import RecordWriter

# The version in the first record of every event file.
FILE_VERSION = "brain.Event:2"


def layout_of_margins(title: str, charts: dict[str, tuple[str, str, str]]) -> Summary:
    """Return the record of charts that draw a curve with its spread, for the Custom Scalars tab.

    Args:
        title: of the group of charts.
        charts: for each chart's title the tags of its curve, of the lower and of the upper end.
    """
    series = layout_pb2.MarginChartContent.Series
    contents = {
        name: layout_pb2.MarginChartContent(series=[series(value=value, lower=lower, upper=upper)])
        for name, (value, lower, upper) in charts.items()
    }
    category = layout_pb2.Category(
        title=title, chart=[layout_pb2.Chart(title=name, margin=content) for name, content in contents.items()]
    )
    data = SummaryMetadata.PluginData(plugin_name=custom_scalar_metadata.PLUGIN_NAME)
    text = layout_pb2.Layout(category=[category]).SerializeToString()
    value = Summary.Value(
        tag=custom_scalar_metadata.CONFIG_SUMMARY_TAG,
        metadata=SummaryMetadata(plugin_data=data),
        tensor=TensorProto(dtype=DT_STRING, string_val=[text]),
    )
    return Summary(value=[value])


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
    "layout_of_margins",
]
