"""What a test says beyond its means: classes, confusion, predictions and the comparison with baselines."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grulab.run_folder import paths
from grulab.system.atomic import write_atomically
from grulab.tasks.base import Task
from grulab.tasks.baselines import Baseline
from grulab.training.metrics import MOST_CLASSES
from grulab.training.module import SequenceClassifier


def class_results(module: SequenceClassifier, class_names: list[str]) -> dict[str, Any]:
    """Return the entries of summary.json on the classes: each one's precision, recall, F1 and support.

    With at most 100 classes the confusion matrix is one of them, truth by prediction.
    """
    metrics = module.test_metrics
    found: dict[str, Any] = {"classes": metrics.of_each_class().rows(class_names)}
    return found | {"confusion_matrix": metrics.confusion.tolist()} if len(class_names) <= MOST_CLASSES else found


def compare(baselines: Sequence[Baseline], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return each baseline's accuracies, and on how many test sequences only it or only the GRU is right.

    Args:
        baselines: of the task.
        right: (sequences,) whether the GRU classifies each test sequence correctly, in the order of their indices.
    """
    found = []
    for baseline in baselines:
        other = np.array(baseline.right)
        found.append(
            {
                "name": baseline.name,
                "val": baseline.val,
                "test": baseline.test,
                "only_gru": int((right & ~other).sum()),
                "only_baseline": int((other & ~right).sum()),
                "sequences": len(right),
            }
        )
    return found


def in_order(parts: Sequence[Tensor], order: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values of test batches, concatenated, in the order of the sequences' indices.

    Args:
        parts: for each batch a tensor with a row for each sequence.
        order: the indices of the sequences as the batches have them.
    """
    values = torch.cat(list(parts)).cpu().numpy()
    sorted_values = np.empty_like(values)
    sorted_values[order] = values
    return sorted_values


def write_predictions(run_dir: Path, task: Task, logits: NDArray[Any], truth: NDArray[np.int64]) -> None:
    """Write predictions.csv: a row for each test sequence.

    Args:
        run_dir: the run's folder.
        task: gives the ids and the names of the classes.
        logits: (sequences, classes) in the order of the sequences' indices.
        truth: (sequences,) the classes.
    """
    names = task.class_names
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "truth", *prediction_columns(names)])
    for name, code, cells in zip(task.ids("test"), truth.tolist(), prediction_cells(names, logits), strict=True):
        writer.writerow([name, names[code], *cells])
    write_atomically(run_dir / paths.PREDICTIONS, text.getvalue())


def prediction_columns(class_names: Sequence[str]) -> list[str]:
    """Return the names of the columns that :func:`prediction_cells` fills."""
    return ["prediction", *(f"p_{name}" for name in class_names)]


def prediction_cells(class_names: Sequence[str], logits: NDArray[Any]) -> Iterator[list[str]]:
    """Yield, for each sequence, the predicted class and the probability of each class, as texts.

    Args:
        class_names: in the order of the logits.
        logits: (sequences, classes).
    """
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    for row in powers / powers.sum(axis=1, keepdims=True):
        yield [class_names[int(row.argmax())], *(f"{value:.6g}" for value in row.tolist())]
