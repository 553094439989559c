"""An exported model gives the answers of the one that it was made of, for every shape and preprocessing."""

import itertools
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import pytest
import torch

from grulab.models.gru import GRUClassifier
from grulab.sequence_files.preprocessing import Preprocessing
from grulab.sequence_files.stream import Part
from grulab.training.onnx_export import build_onnx, run_onnx
from grulab.training.prediction import logits_of
from grulab.training.trained_model import Classifier


@dataclass
class Module:
    """A model where a trained one has it."""

    model: GRUClassifier


@dataclass
class Task:
    """The parts of a stored task that a prediction needs."""

    preprocessing: Preprocessing
    num_features: int
    num_classes: int


SHAPES = list(itertools.product((1, 2, 3), (False, True), (1, 2, 5, 13), (1, 8, 64), (2, 7)))
# Each shape with three of the ways to preprocess; together 432 configurations.
WAYS = [
    {},
    {"fill": True},
    {"fill": True, "indicators": True},
    {"every": 3},
    {"max_steps": 5},
    {"max_steps": 4, "cut": "start"},
    {"every": 2, "max_steps": 6, "cut": "start", "fill": True, "indicators": True},
]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_answers_are_the_same(layers: int) -> None:
    worst, configurations = 0.0, 0
    for number, (num_layers, bidirectional, features, hidden_size, classes) in enumerate(SHAPES):
        if num_layers != layers:
            continue
        for way in (WAYS[(number + shift) % len(WAYS)] for shift in (0, 2, 5)):
            rng = np.random.default_rng(number)
            torch.manual_seed(number)
            steps = Preprocessing(
                fill=rng.normal(size=features).tolist() if way.get("fill") else None,
                indicators=list(range(0, features, 2)) if way.get("indicators") else [],
                every=int(way.get("every", 1)),
                max_steps=way.get("max_steps"),  # type: ignore[arg-type]
                cut="start" if way.get("cut") else "end",
                center=(1e6 * rng.normal(size=features)).tolist(),
                spread=(0.5 + rng.random(features)).tolist(),
            )
            model = GRUClassifier(steps.num_features, hidden_size, num_layers, classes, bidirectional).eval()
            lengths = np.array([1, 17, *rng.integers(1, 18, 4)])
            values = np.array(steps.center) + rng.normal(size=(int(lengths.sum()), features))
            if steps.fill is not None:
                values[rng.random(values.shape) < 0.3] = np.nan
            task = Task(steps, steps.num_features, classes)
            classifier = cast(Classifier, type("Trained", (), {"task": task, "module": Module(model)})())
            part = Part(values, lengths, [str(k) for k in range(len(lengths))], None, None)
            expected = logits_of(classifier, part, "x")
            found = run_onnx(build_onnx(model, steps).SerializeToString(), values, lengths)
            worst = max(worst, float(np.abs(found - expected).max()))
            configurations += 1
            np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert configurations == 144
    assert worst < 1e-5


def test_the_graph_is_what_other_tools_read() -> None:
    steps = Preprocessing([0.0], [0], 2, 6, "start", [0.0], [1.0])
    model = build_onnx(GRUClassifier(2, 4, 2, 3, bidirectional=True), steps)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 17
    shapes = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "values": ["batch", "time", 1], "lengths": ["batch"], "logits": ["batch", 3], "probabilities": ["batch", 3],
    }  # fmt: skip
