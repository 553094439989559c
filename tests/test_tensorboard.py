"""What TensorBoard's own readers find in a run's folder."""

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import metadata as hparams_metadata

from grulab.tracking.tensorboard import flatten
from tests.conftest import Run

CURVES = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"]


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def plugin_data(accumulator: EventAccumulator, tag: str) -> bytes:
    metadata: SummaryMetadata = accumulator.SummaryMetadata(tag)
    return metadata.plugin_data.content


def test_every_tag_of_the_contract_is_there(run: Run, tmp_path: Path) -> None:
    summary = run("run")
    found = events(tmp_path / "run" / "tensorboard")
    by_length = [tag for tag in summary["metrics"] if tag.startswith("test/accuracy_by_length/")]
    assert by_length
    expected = {*CURVES, "test/loss", "test/accuracy", "task/chance", "task/ceiling", *by_length}
    assert set(found.Tags()["scalars"]) == expected
    # One file: nothing else of Lightning's is left in the folder.
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_curves_are_the_rows_of_metrics_csv(run: Run, tmp_path: Path) -> None:
    run("run")
    found = events(tmp_path / "run" / "tensorboard")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for tag in CURVES:
        points = [(event.step, event.value) for event in found.Scalars(tag)]
        assert [step for step, _ in points] == [int(row["step"]) for row in rows]
        assert [value for _, value in points] == pytest.approx([float(row[tag]) for row in rows], rel=1e-6)
    for tag in ("task/chance", "task/ceiling"):
        assert [event.step for event in found.Scalars(tag)] == [0, *(int(row["step"]) for row in rows)]


def test_chance_and_ceiling_are_on_the_accuracy_chart(run: Run, tmp_path: Path) -> None:
    run("run")
    found = events(tmp_path / "run" / "tensorboard")
    (tensor,) = found.Tensors(layout_metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["accuracy"] == ["^train/accuracy$", "^val/accuracy$", "^task/chance$", "^task/ceiling$"]


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_hyper_parameters_are_typed_and_the_status_is_true(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    if outcome == "failed":
        monkeypatch.setattr("grulab.run._test_metrics", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("run", "model.bidirectional=true")
    else:
        run("run", "model.bidirectional=true")
    found = events(tmp_path / "run" / "tensorboard")
    start = hparams_metadata.parse_session_start_info_plugin_data(
        plugin_data(found, hparams_metadata.SESSION_START_INFO_TAG)
    )
    values = {key: value.WhichOneof("kind") for key, value in start.hparams.items()}
    assert values["model.hidden_size"] == "number_value"
    assert values["model.bidirectional"] == "bool_value"
    assert values["trainer.gradient_clip_val"] == "null_value"
    assert values["data.task"] == "string_value"
    assert start.hparams["model.bidirectional"].bool_value is True
    end = hparams_metadata.parse_session_end_info_plugin_data(
        plugin_data(found, hparams_metadata.SESSION_END_INFO_TAG)
    )
    assert end.status == {"done": 1, "failed": 2}[outcome]
    # No experiment record: TensorBoard would take one run's for everybody's (tensorboard#6965).
    assert hparams_metadata.EXPERIMENT_TAG not in found.Tags()["tensors"]


def test_the_hparams_tab_has_every_run_with_its_metrics(run: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    for size in (4, 8):
        run(f"h{size}", f"model.hidden_size={size}", "trainer.max_epochs=1")
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    backend = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(tmp_path))))
    request = RequestContext()
    experiment = backend.experiment_from_metadata(
        request,
        "",
        True,
        backend.hparams_metadata(request, ""),
        backend.hparams_from_data_provider(request, "", 100),
    )
    columns = {info.name: info.type for info in experiment.hparam_infos}
    assert columns["model.hidden_size"] == api_pb2.DATA_TYPE_FLOAT64
    assert columns["model.bidirectional"] == api_pb2.DATA_TYPE_BOOL
    metrics = {info.name.tag for info in experiment.metric_infos}
    assert {"val/accuracy", "test/accuracy", "val/loss", "test/loss"} <= metrics
    answer = list_session_groups.Handler(
        request,
        backend,
        "",
        api_pb2.ListSessionGroupsRequest(
            start_index=0, slice_size=10, allowed_statuses=[1, 2, 3], include_metrics=True
        ),
    ).run()
    sizes = {group.hparams["model.hidden_size"].number_value for group in answer.session_groups}
    assert sizes == {4.0, 8.0}


def test_nested_keys_are_dotted() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}
