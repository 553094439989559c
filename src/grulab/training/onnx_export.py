"""Write a trained model as ONNX: scaling inside, batch and time of any size, and checked before it is written.

The graph is built by hand, because torch's exporters fail on packed sequences (pytorch#112044), and ONNX has a GRU
with lengths. Its gates are in the order z, r, h; those of nn.GRU in the order r, z, n.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grulab.models.gru import GRUClassifier
from grulab.sequence_files.preprocessing import Preprocessing
from grulab.sequence_files.stream import Part
from grulab.training.prediction import logits_of
from grulab.training.trained_model import Classifier

OPSET = 17
# The newest version of the file format that a runtime of opset 17 reads.
_IR_VERSION = 8
VALUES, LENGTHS, LOGITS, PROBABILITIES = "values", "lengths", "logits", "probabilities"
_TOLERANCE = 1e-5
_CHECKED = 24
_MOST_CELLS = 10_000_000


class ExportDiffersError(RuntimeError):
    """The exported model gives other answers than the one that it was made of."""


def export(classifier: Classifier) -> bytes:
    """Return a trained model as an ONNX file, after comparing the two on sequences of many lengths.

    Raises:
        ExportDiffersError: if they differ by more than 1e-5 in a logit.
    """
    import onnx

    model = build_onnx(classifier.module.model, classifier.task.preprocessing)
    onnx.helper.set_model_props(
        model,
        {
            "class_names": json.dumps(classifier.task.class_names),
            "feature_names": json.dumps(classifier.task.features),
            "content": classifier.task.content,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    _refuse_difference(classifier, data)
    return data


def build_onnx(model: GRUClassifier, steps: Preprocessing) -> Any:
    """Return the ONNX model of a classifier and the preprocessing of its input.

    Its inputs are ``values`` (batch, time, features) float64, as a file has them, and ``lengths`` (batch,) int64; its
    outputs ``logits`` and ``probabilities`` (batch, classes) float32.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    num_features = len(steps.center)
    x = _preprocessed(graph, steps)
    lengths = graph.add("Cast", [graph.lengths], to=TensorProto.INT32)
    x = graph.add("Transpose", [x], perm=[1, 0, 2])
    for layer in range(model.gru.num_layers):
        is_last = layer == model.gru.num_layers - 1
        x = _layer(graph, model.gru, layer, x, lengths, is_last)
    # (directions, batch, hidden_size) -> (batch, directions x hidden_size)
    x = graph.add("Reshape", [graph.add("Transpose", [x], perm=[1, 0, 2]), graph.constant([0, -1])])
    head = model.head
    graph.add("Gemm", [x, graph.constant(head.weight), graph.constant(head.bias)], name=LOGITS, transB=1)
    graph.add("Softmax", [LOGITS], name=PROBABILITIES, axis=1)
    inputs = [
        helper.make_tensor_value_info(VALUES, TensorProto.DOUBLE, ["batch", "time", num_features]),
        helper.make_tensor_value_info(LENGTHS, TensorProto.INT64, ["batch"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", head.out_features])
        for name in (LOGITS, PROBABILITIES)
    ]
    whole = helper.make_graph(graph.nodes, "grulab", inputs, outputs, graph.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(whole, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="grulab")


class _Graph:
    """The nodes and the constants of a graph; each result has a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.lengths = LENGTHS

    def add(
        self, kind: str, inputs: Sequence[str], name: str | None = None, count: int = 1, **attributes: Any
    ) -> str:
        """Add a node; return the name of its last output, which is the one of ``count`` that is used."""
        from onnx import helper

        names = [f"{kind.lower()}_{len(self.nodes)}_{place}" for place in range(count)]
        names[-1] = name or names[-1]
        # An output without a name is left out, which a GRU allows and a Scan does not.
        outputs = names if kind == "Scan" else [*[""] * (count - 1), names[-1]]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return names[-1]

    def constant(self, values: Any, dtype: Any = None) -> str:
        """Add a constant; return its name. Whole numbers are int64, tensors float32."""
        from onnx import numpy_helper

        if isinstance(values, torch.Tensor):
            array = values.detach().float().numpy()
        else:
            array = np.array(values, dtype=dtype or np.int64)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _preprocessed(graph: _Graph, steps: Preprocessing) -> str:
    """Add the nodes of :meth:`Preprocessing.apply`; return the input of the GRU: (batch, time, features) float32."""
    from onnx import TensorProto

    x, gaps = VALUES, None
    if steps.fill is not None:
        gaps = graph.add("Cast", [graph.add("IsNaN", [VALUES])], to=TensorProto.FLOAT)
        x = _filled_forward(graph, steps.fill)
    if steps.every > 1 or steps.max_steps is not None:
        index = _kept_steps(graph, steps)
        x = _gathered(graph, x, index, len(steps.center))
        gaps = gaps and _gathered(graph, gaps, index, len(steps.center))
    x = graph.add("Sub", [x, graph.constant(steps.center, np.float64)])
    x = graph.add("Div", [x, graph.constant(steps.spread, np.float64)])
    x = graph.add("Cast", [x], to=TensorProto.FLOAT)
    if steps.indicators:
        assert gaps is not None
        chosen = graph.add("Gather", [gaps, graph.constant(steps.indicators)], axis=2)
        x = graph.add("Concat", [x, chosen], axis=2)
    return x


def _filled_forward(graph: _Graph, fill: list[float]) -> str:
    """Add a loop over time that remembers the last known value of each feature."""
    from onnx import TensorProto, helper

    def info(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)

    body = helper.make_graph(
        [
            helper.make_node("IsNaN", ["step"], ["is_gap"]),
            helper.make_node("Where", ["is_gap", "before", "step"], ["after"]),
            helper.make_node("Identity", ["after"], ["filled"]),
        ],
        "fill",
        [info("before"), info("step")],
        [info("after"), info("filled")],
    )
    batch = graph.add("Shape", [LENGTHS])
    shape = graph.add("Concat", [batch, graph.constant([len(fill)])], axis=0)
    first = graph.add("Expand", [graph.constant(fill, np.float64), shape])
    return graph.add(
        "Scan", [first, VALUES], count=2, body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1]
    )


def _kept_steps(graph: _Graph, steps: Preprocessing) -> str:
    """Add the positions of the steps that are kept, (batch, time), and the new lengths."""
    every = graph.constant([steps.every])
    rounded = graph.add("Add", [LENGTHS, graph.constant([steps.every - 1])])
    all_steps = graph.add("Div", [rounded, every])
    kept = all_steps
    if steps.max_steps is not None:
        kept = graph.add("Min", [all_steps, graph.constant([steps.max_steps])])
    graph.lengths = kept
    zero, one = graph.constant(0), graph.constant(1)
    longest = graph.add("ReduceMax", [kept], keepdims=0)
    places = graph.add("Unsqueeze", [graph.add("Range", [zero, longest, one]), graph.constant([0])])
    skipped = graph.add("Sub", [all_steps, kept if steps.cut == "start" else all_steps])
    skipped = graph.add("Unsqueeze", [skipped, graph.constant([1])])
    index = graph.add("Mul", [graph.add("Add", [places, skipped]), every])
    # In the padding of a shorter sequence the positions go beyond the end.
    size = graph.add("Gather", [graph.add("Shape", [VALUES]), graph.constant([1])], axis=0)
    return graph.add("Min", [index, graph.add("Sub", [size, graph.constant([1])])])


def _gathered(graph: _Graph, x: str, index: str, width: int) -> str:
    """Add the selection of steps: (batch, time, features) at (batch, new time)."""
    shape = graph.add("Concat", [graph.add("Shape", [index]), graph.constant([width])], axis=0)
    repeated = graph.add("Expand", [graph.add("Unsqueeze", [index, graph.constant([2])]), shape])
    return graph.add("GatherElements", [x, repeated], axis=1)


def _layer(graph: _Graph, gru: torch.nn.GRU, layer: int, x: str, lengths: str, is_last: bool) -> str:
    """Add a layer; return all states (time, batch, directions x hidden_size), or of the last layer the final ones."""
    endings = ["", "_reverse"] if gru.bidirectional else [""]

    def stacked(name: str) -> torch.Tensor:
        return torch.stack([_in_order(getattr(gru, f"{name}_l{layer}{ending}")) for ending in endings])

    weights = [stacked("weight_ih"), stacked("weight_hh")]
    bias = torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1)
    inputs = [x, *(graph.constant(part) for part in weights), graph.constant(bias), lengths]
    attributes: dict[str, Any] = {
        "hidden_size": gru.hidden_size,
        "direction": "bidirectional" if gru.bidirectional else "forward",
        # nn.GRU multiplies the state by its matrix before it applies the reset gate.
        "linear_before_reset": 1,
    }
    if is_last:
        return graph.add("GRU", inputs, count=2, **attributes)
    # (time, directions, batch, hidden_size) -> (time, batch, directions x hidden_size)
    states = graph.add("GRU", inputs, **attributes)
    return graph.add("Reshape", [graph.add("Transpose", [states], perm=[0, 2, 1, 3]), graph.constant([0, 0, -1])])


def _in_order(weight: torch.Tensor) -> torch.Tensor:
    reset, update, new = weight.detach().chunk(3)
    return torch.cat([update, reset, new])


def _refuse_difference(classifier: Classifier, data: bytes) -> None:
    """Compare the exported model with the one that it was made of, with NaN in the padding.

    Raises:
        ExportDiffersError: if they differ.
    """
    steps = classifier.task.preprocessing
    rng = np.random.default_rng(0)
    kept = 60 if steps.max_steps is None else min(60, steps.max_steps + 10)
    longest = max(2, min(kept * steps.every, _MOST_CELLS // (_CHECKED * len(steps.center))))
    lengths = np.concatenate([[1, longest], rng.integers(1, longest + 1, _CHECKED - 2)]).astype(np.int64)
    width = len(steps.center)
    values = np.array(steps.center) + np.array(steps.spread) * rng.standard_normal((int(lengths.sum()), width))
    if steps.fill is not None:
        values[rng.random(values.shape) < 0.2] = np.nan
    part = Part(values, lengths, [str(number) for number in range(len(lengths))], None, None)
    expected = logits_of(classifier, part, classifier.path.name)
    found = run_onnx(data, values, lengths)
    # Large logits have fewer digits behind the point.
    difference = float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())
    if not difference <= _TOLERANCE:
        raise ExportDiffersError(
            f"the exported model differs by {difference:.2g} in a logit, over {_TOLERANCE:g}; nothing was written"
        )


def run_onnx(data: bytes, values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the logits of an exported model: (sequences, classes); ``values`` is flat, the padding is NaN."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    padded = np.full((len(lengths), int(lengths.max()), values.shape[1]), np.nan)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    logits: NDArray[np.float32] = session.run([LOGITS], {VALUES: padded, LENGTHS: lengths})[0]
    return logits
