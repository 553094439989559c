"""The contents of a run's folder as TensorBoard's own readers see them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from tensorboard.plugins.hparams import metadata as hparams_metadata

from grulab.config.same_run import flatten
from tests.conftest import FAULTS, SMALL, Run, grulab

CURVES = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/macro_f1"]


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
    measures = {f"test/{name}" for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "calibration_error")}
    expected = {*CURVES, *measures, "val/chance", "val/ceiling", *by_length}
    assert set(found.Tags()["scalars"]) == expected
    # The learning rate is a curve where it changes.
    run("cosine", "optimizer.schedule=cosine")
    assert set(events(tmp_path / "cosine" / "tensorboard").Tags()["scalars"]) == expected | {"lr"}
    # One event file: Lightning's logger leaves no other file in the folder.
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
    for tag in ("val/chance", "val/ceiling"):
        assert [event.step for event in found.Scalars(tag)] == [0, *(int(row["step"]) for row in rows)]


def test_chance_and_ceiling_are_on_the_accuracy_chart(run: Run, tmp_path: Path) -> None:
    run("run")
    found = events(tmp_path / "run" / "tensorboard")
    (tensor,) = found.Tensors(layout_metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["accuracy"] == [
        "^train/accuracy$",
        "^val/accuracy$",
        "^val/chance$",
        "^val/ceiling$",
        "^val/baselines/",
    ]


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_hyper_parameters_are_typed_and_the_status_is_true(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    if outcome == "failed":
        monkeypatch.setattr("grulab.training.run._test_metrics", lambda *_: 1 / 0)
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
    # No experiment record: TensorBoard would apply the record of one run to all runs (tensorboard#6965).
    assert hparams_metadata.EXPERIMENT_TAG not in found.Tags()["tensors"]


def hparams_tab(logdir: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the type of each column, and the sessions by name, from TensorBoard's own backend."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    backend = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(logdir))))
    request = RequestContext()
    experiment = backend.experiment_from_metadata(
        request,
        "",
        True,
        backend.hparams_metadata(request, ""),
        backend.hparams_from_data_provider(request, "", 1000),
    )
    columns = {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}
    answer = list_session_groups.Handler(
        request,
        backend,
        "",
        api_pb2.ListSessionGroupsRequest(
            start_index=0, slice_size=1000, allowed_statuses=[0, 1, 2, 3], include_metrics=True
        ),
    ).run()
    return columns, {group.name.split(" / ")[0]: group for group in answer.session_groups}


def metrics_of(group: Any) -> dict[str, float]:
    return {value.name.tag: value.value for value in group.metric_values}


def test_the_hparams_tab_of_the_default_sweep(tmp_path: Path) -> None:
    """36 sessions, every swept key with its type, every metric with its value in summary.json."""
    process = grulab(
        tmp_path, "train", "-m", "experiment=architecture", *SMALL, "trainer.max_epochs=1", "hydra.sweep.dir=sweep"
    )
    assert process.returncode == 0, process.stderr
    columns, sessions = hparams_tab(tmp_path / "sweep")
    assert len(sessions) == 36
    assert columns["model.hidden_size"] == columns["model.num_layers"] == columns["seed"] == "DATA_TYPE_FLOAT64"
    assert columns["model.bidirectional"] == "DATA_TYPE_BOOL"
    for name, group in sessions.items():
        summary = json.loads((tmp_path / "sweep" / name / "summary.json").read_text())
        assert [session.status for session in group.sessions] == [api_pb2.STATUS_SUCCESS]
        for key in ("hidden_size", "num_layers"):
            assert group.hparams[f"model.{key}"].number_value == summary["config"]["model"][key]
        assert group.hparams["model.bidirectional"].bool_value is summary["config"]["model"]["bidirectional"]
        assert group.hparams["seed"].number_value == summary["seed"]
        found = metrics_of(group)
        for tag, value in summary["metrics"].items():
            assert found[tag] == pytest.approx(value, rel=1e-6), tag


def test_the_hparams_tab_is_right_for_jobs_that_failed_were_resumed_or_differ_in_keys(tmp_path: Path) -> None:
    arguments = ["train", "-m", *SMALL[1:], "data.train_size=65", "data=sinusoids,temporal_order", "seed=0,1"]
    process = grulab(
        tmp_path, *arguments, "hydra.sweep.dir=sweep", program=FAULTS % {0: "killed", 1: "import", 3: "killed"}
    )
    assert process.returncode == 1
    columns, sessions = hparams_tab(tmp_path / "sweep")
    assert columns["data.noise"] == "DATA_TYPE_FLOAT64"
    assert columns["data.level"] == "DATA_TYPE_STRING"
    assert {name.split("_")[0]: group.sessions[0].status for name, group in sessions.items()} == {
        "000": api_pb2.STATUS_FAILURE,
        "001": api_pb2.STATUS_FAILURE,
        "002": api_pb2.STATUS_SUCCESS,
        "003": api_pb2.STATUS_FAILURE,
    }
    # A job that failed after its first epoch has the metrics of that epoch and no test metrics.
    failed = metrics_of(next(group for name, group in sessions.items() if name.startswith("000")))
    assert "val/accuracy" in failed
    assert "test/accuracy" not in failed
    assert grulab(tmp_path, "resume", "sweep").returncode == 0
    _, sessions = hparams_tab(tmp_path / "sweep")
    assert len(sessions) == 4
    for group in sessions.values():
        assert [session.status for session in group.sessions] == [api_pb2.STATUS_SUCCESS]
        assert {"val/accuracy", "val/loss", "test/accuracy", "test/loss"} <= metrics_of(group).keys()
        assert ("data.noise" in group.hparams) != ("data.level" in group.hparams)


def test_nested_keys_are_dotted() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}
