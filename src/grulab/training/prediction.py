"""Classify sequences of files with a trained model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.data.batch import PaddedBatch
from grulab.sequence_files.flat import quote, shorten, starts_of
from grulab.sequence_files.preprocessing import padded
from grulab.sequence_files.stream import Part, Stream
from grulab.tasks.base import Sequences
from grulab.training.metrics import TestMetrics
from grulab.training.trained_model import Classifier

# Values of a padded batch; more would not be quicker.
_CELLS = 2_000_000
_MOST_TOGETHER = 1024


@dataclass(frozen=True)
class Predictions:
    """The ids and the labels of some sequences, and their logits: (sequences, classes) float32."""

    ids: list[str]
    labels: list[str] | None
    logits: NDArray[np.float32]


def predict(classifier: Classifier, stream: Stream) -> Iterator[Predictions]:
    """Classify the sequences of a file, a part at a time, in its order.

    Raises:
        ConfigError: naming what is odd in the file.
    """
    for part in stream.parts():
        yield Predictions(part.ids, part.labels, logits_of(classifier, part, stream.name))


def logits_of(classifier: Classifier, part: Part, name: str) -> NDArray[np.float32]:
    """Return the logits of sequences: (sequences, classes). They do not depend on which sequences are together.

    Args:
        classifier: the model.
        part: the sequences.
        name: of their file, for the messages.

    Raises:
        ConfigError: if a value is missing, and the model has learned from sequences without gaps; or if one is beyond
            32 bits.
    """
    steps = classifier.task.preprocessing
    if part.first_missing is not None and steps.fill is None:
        raise ConfigError(
            f"{part.first_missing}: a value is missing, and the model has learned from sequences without gaps "
            "(data.missing=refuse)"
        )
    values, lengths = steps.apply(part.values, part.lengths), steps.lengths(part.lengths)
    starts = starts_of(lengths)
    if (odd := ~np.isfinite(values)).any():
        step, column = (int(place) for place in np.argwhere(odd)[0])
        sequence = int(np.searchsorted(starts, step, side="right")) - 1
        raise ConfigError(
            f"{name}: id {shorten([part.ids[sequence]])}, column {(classifier.task.columns.features or ())[column]}: "
            "a value is beyond 32 bits when it is scaled; correct it, or leave the sequence out"
        )
    logits = np.empty((len(lengths), classifier.task.num_classes), np.float32)
    # The longest first, so that a batch holds little padding.
    order = np.argsort(-lengths, kind="stable")
    start = 0
    with torch.inference_mode():
        while start < len(order):
            count = max(1, _CELLS // int(lengths[order[start]] * classifier.task.num_features))
            chosen = order[start : start + min(count, _MOST_TOGETHER)]
            rows = np.concatenate([np.arange(starts[one], starts[one] + lengths[one]) for one in chosen.tolist()])
            x = padded(values[rows], lengths[chosen])
            batch = PaddedBatch.of(Sequences(x, lengths[chosen], np.zeros(len(chosen), np.int64)))
            logits[chosen] = _logits(classifier, batch)
            start += len(chosen)
    if not np.isfinite(logits).all():
        sequence = int(np.argmax(~np.isfinite(logits).all(axis=1)))
        raise ConfigError(
            f"{name}: the model has no finite answer for the sequence with id {quote(part.ids[sequence])}: "
            "its weights are too large for 32 bits"
        )
    return logits


def _logits(classifier: Classifier, batch: PaddedBatch) -> NDArray[np.float32]:
    """Return the logits of a batch; the head in 64 bits, since the last bit of a product depends on its size."""
    model = classifier.module.model
    _, last = model.hidden_states(batch.x, batch.lengths)
    logits = last.double() @ model.head.weight.double().T + model.head.bias.double()
    rounded: NDArray[np.float32] = logits.float().numpy()
    return rounded


def evaluate_part(classifier: Classifier, part: Part, name: str) -> TestMetrics:
    """Return the metrics of a model on labelled sequences.

    Args:
        classifier: the model.
        part: the sequences, with labels.
        name: of their file, for the messages.

    Raises:
        ConfigError: if a label is none of the model's classes.
    """
    assert part.labels is not None
    codes = {label: code for code, label in enumerate(classifier.task.class_names)}
    unknown = next((place for place, label in enumerate(part.labels) if label not in codes), None)
    if unknown is not None:
        raise ConfigError(
            f"{name}: the sequence with id {quote(part.ids[unknown])} has the label {quote(part.labels[unknown])}, "
            f"and the model knows {shorten(classifier.task.class_names)}"
        )
    metrics = TestMetrics(classifier.task.num_classes)
    logits = torch.from_numpy(logits_of(classifier, part, name))
    y = torch.tensor([codes[label] for label in part.labels])
    metrics.add(torch.nn.functional.cross_entropy(logits, y), logits, y)
    return metrics
