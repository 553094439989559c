"""How good a trained model is: on its test sequences, or on those of another file with labels."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from grulab.data.batch import PaddedBatch
from grulab.report.evaluation_sections import class_section
from grulab.report.sections import Section
from grulab.sequence_files.cache import read_file
from grulab.sequence_files.stream import part_of
from grulab.tasks.files import FilesConfig
from grulab.training.metrics import TestMetrics
from grulab.training.prediction import evaluate_part
from grulab.training.trained_model import Trained, load_classifier, load_trained

_TOGETHER = 2_000_000


def evaluate(checkpoint: Path, path: str | None, labels: str | None) -> list[Section]:
    """Return what a model makes of its test sequences, or of those in another file.

    Args:
        checkpoint: of the model.
        path: of a file; None for the one that it has learned from. If the file holds the same sequences as that one,
            with features of the same names, the test split is evaluated, and otherwise all of its sequences.
        labels: a table of labels, if they are not in the file.

    Raises:
        ConfigError: if the checkpoint or the file is not as it should be.
    """
    if path is None:
        return _of_test_split(load_trained(checkpoint))
    classifier = load_classifier(checkpoint)
    file = Path(path).expanduser().absolute()
    stored = read_file(file, None if labels is None else Path(labels).absolute(), classifier.task.columns)
    has_same_names = not stored.flat.has_names or stored.flat.feature_names == classifier.task.features
    if stored.content == classifier.task.content and has_same_names:
        assert isinstance(classifier.config.data, FilesConfig)
        data = dataclasses.replace(classifier.config.data, path=str(file), labels=labels)
        return _of_test_split(load_trained(checkpoint, data))
    notes: list[str] = []
    part = part_of(stored.flat, classifier.task.columns, file.name, notes)
    metrics = evaluate_part(classifier, part, file.name)
    text = f"All {len(part.lengths):,} sequences of {file.name}."
    return _sections(metrics, classifier.task.class_names, "\n\n".join([text, *(f"Note: {line}." for line in notes)]))


def _of_test_split(trained: Trained) -> list[Section]:
    task = trained.task
    metrics = TestMetrics(task.num_classes)
    together = max(1, _TOGETHER // (task.length_range[1] * task.num_features))
    with torch.inference_mode():
        for start in range(0, task.size("test"), together):
            indices = np.arange(start, min(start + together, task.size("test")))
            batch = PaddedBatch.of(task.generate(trained.config.data.seed, "test", indices))
            logits = trained.module(batch.x, batch.lengths)
            metrics.add(torch.nn.functional.cross_entropy(logits, batch.y), logits, batch.y)
    text = f"The {task.size('test'):,} sequences of the test split, which the model has not learned from."
    return _sections(metrics, task.class_names, text)


def _sections(metrics: TestMetrics, class_names: list[str], text: str) -> list[Section]:
    values = metrics.compute()
    names = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "loss": "log loss",
        "calibration_error": "calibration error",
    }
    table = pd.DataFrame({"measure": list(names.values()), "value": [f"{values[name]:.4f}" for name in names]})
    return [
        Section("Evaluation", text, table),
        class_section(metrics.of_each_class().rows(class_names)),
    ]
