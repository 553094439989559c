"""Simple classifiers to compare a GRU with, where the best possible accuracy is unknown."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from grulab.field_types import Split
from grulab.sequence_files.cache import remember
from grulab.system.child import in_child
from grulab.tasks.base import Task

MAJORITY, LOGISTIC, RIDGE = "majority", "logistic_regression", "segment_ridge"
IN_WORDS = {
    MAJORITY: "the most frequent class",
    LOGISTIC: "a logistic regression on each feature's mean and standard deviation, and the length",
    RIDGE: "a ridge classifier on each feature's mean in three segments",
}
_SEGMENTS = 3
# More sequences hardly change the weights of so few features.
_MOST_TRAINED = 50_000
_CELLS = 4_000_000


@dataclass(frozen=True, config=ConfigDict(strict=False))
class Baseline:
    """A simple classifier that has learned from the training sequences.

    Attributes:
        name: one of the keys of IN_WORDS.
        val: its accuracy on the validation sequences.
        test: its accuracy on the test sequences.
        right: for each test sequence, whether it is classified correctly.
    """

    name: str
    val: float
    test: float
    right: list[bool]


_SCHEMA: TypeAdapter[list[Baseline]] = TypeAdapter(list[Baseline])
_KNOWN: dict[str, list[Baseline]] = {}


def baselines(task: Task) -> list[Baseline]:
    """Return the baselines of a task, or [] if its ceiling is known.

    They are computed once for the same data, in a process of its own, because scikit-learn takes a second to import
    and starts threads.
    """
    if task.ceiling() is not None:
        return []
    config = {
        key: value
        for key, value in dataclasses.asdict(task.config).items()
        if key not in (*task.config.PLACES, "batch_size", "num_workers")
    }
    key = json.dumps(config, sort_keys=True)
    if key not in _KNOWN:
        parts = [key, version("scikit-learn")]
        found = remember(task.cache_folder, "baselines", parts, lambda: in_child(_compute, task), _is_sound)
        _KNOWN[key] = [Baseline(**values) for values in found]
    return _KNOWN[key]


def _is_sound(found: Any) -> bool:
    try:
        read = _SCHEMA.validate_python(found, strict=True)
    except ValidationError:
        return False
    return [one.name for one in read] == list(IN_WORDS) and len({len(one.right) for one in read}) == 1


def _compute(task: Task) -> list[dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    described = {split: _describe(task, split) for split in ("train", "val", "test")}
    statistics, segments, classes = described["train"]
    majority = int(np.bincount(classes).argmax())
    found = [_result(MAJORITY, lambda _: np.full(len(_), majority), described, place=0)]
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(statistics, classes)
    found.append(_result(LOGISTIC, logistic.predict, described, place=0))
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 13))).fit(segments, classes)
    found.append(_result(RIDGE, ridge.predict, described, place=1))
    return found


def _result(name: str, predict: Any, described: Mapping[str, tuple[NDArray[Any], ...]], place: int) -> dict[str, Any]:
    right = {split: predict(described[split][place]) == described[split][2] for split in ("val", "test")}
    return {
        "name": name,
        "val": float(right["val"].mean()),
        "test": float(right["test"].mean()),
        "right": right["test"].tolist(),
    }


def _describe(task: Task, split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each sequence's means, standard deviations and length; its means in three segments; and its class."""
    size = task.size(split)
    chosen = np.arange(size)
    if split == "train" and size > _MOST_TRAINED:
        chosen = np.linspace(0, size - 1, _MOST_TRAINED).round().astype(np.int64)
    together = max(1, _CELLS // (task.length_range[1] * task.num_features))
    parts = [_statistics(task, split, chosen[start : start + together]) for start in range(0, len(chosen), together)]
    statistics, segments, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return statistics, segments, classes


def _statistics(task: Task, split: Split, indices: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    features, lengths, classes = task.generate(task.config.seed, split, indices)
    x = features.astype(np.float64)
    time = np.arange(x.shape[1])
    is_step = (time < lengths[:, None])[:, :, None]
    count = lengths[:, None].astype(np.float64)
    mean = (x * is_step).sum(axis=1) / count
    spread = np.sqrt((np.square(x - mean[:, None]) * is_step).sum(axis=1) / count)
    segments = []
    for number in range(_SEGMENTS):
        # A sequence shorter than three steps has its steps in several segments.
        first = number * lengths // _SEGMENTS
        end = np.maximum((number + 1) * lengths // _SEGMENTS, first + 1)
        inside = ((time >= first[:, None]) & (time < end[:, None]))[:, :, None]
        segments.append((x * inside).sum(axis=1) / (end - first)[:, None])
    return np.concatenate([mean, spread, count], axis=1), np.concatenate(segments, axis=1), classes
