"""The interface of a task: configuration, sequences by index, chance level and best possible accuracy."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.config_error import ConfigError
from grulab.field_types import STRICT, Count, Flag, Integer, Seed, Split
from grulab.tasks import counter_rng


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The configuration keys that all tasks share.

    A subclass declares ``task: Literal["<name>"]``, the name of the task in a configuration.

    Attributes:
        PLACES: the keys that say where the sequences are, and not which they are: a run is the same in another place.
    """

    PLACES: ClassVar[tuple[str, ...]] = ()

    task: str
    seed: Seed
    batch_size: Count
    num_workers: Annotated[Integer, Field(ge=0, le=256)]

    def located(self) -> Self:
        """Return the configuration with everything that a file adds to it; sequences that are generated have none."""
        return self


@dataclass(frozen=True, config=STRICT)
class GeneratedDataConfig(DataConfig):
    """The configuration keys of a task that generates its sequences.

    Attributes:
        train_size, val_size, test_size: number of sequences in each split; of training, in an epoch.
        fresh: whether each epoch of training draws new sequences.
    """

    train_size: Count
    val_size: Count
    test_size: Count
    # With a default, for the tasks of other packages.
    fresh: Flag = dataclasses.field(default=False, kw_only=True)


@dataclass(frozen=True, config=STRICT)
class LengthRangeConfig(GeneratedDataConfig):
    """The keys of a task that generates sequences with lengths from a range."""

    min_length: Count
    max_length: Count

    @model_validator(mode="after")
    def _lengths_are_a_range(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length={self.min_length}: is over data.max_length={self.max_length}; "
                "lower the one or raise the other"
            )
        return self


class Sequences(NamedTuple):
    """Labelled sequences of different lengths, padded at the end with zeros.

    Attributes:
        features: (sequences, time, features) float32; time is the longest length among these sequences.
        lengths: (sequences,) int64, in steps.
        classes: (sequences,) int64, from 0.
    """

    features: NDArray[np.float32]
    lengths: NDArray[np.int64]
    classes: NDArray[np.int64]


class Task(ABC):
    """A source of labelled sequences, each a pure function of (seed, split, index).

    The constructor sets the sizes, the features and the classes; parsing a configuration does not call it.

    Attributes:
        config_class: the schema of the task's keys under ``data``.
        num_features: number of features of a step.
        num_classes: number of classes.
        chance: accuracy of the best classifier that ignores the sequence.
        length_range: shortest and longest possible sequence, in steps.
        lengths_are_uniform: whether every length of the range is equally likely.
        notes: lines on the sequences, for whoever starts a run.
        has_ids: whether the sequences are somebody's own, with ids by which to name them.
        cache_folder: where results about the sequences can be kept, or None.
    """

    config_class: ClassVar[type[DataConfig]]
    config: DataConfig
    num_features: int
    num_classes: int
    chance: float
    length_range: tuple[int, int]
    lengths_are_uniform: bool = False
    notes: Sequence[str] = ()
    has_ids: bool = False
    cache_folder: Path | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether each epoch of training has sequences of its own: from index e times the split's size in epoch e."""
        return False

    @property
    def class_names(self) -> list[str]:
        """The name of each class; by default its number."""
        return [str(number) for number in range(self.num_classes)]

    def class_counts(self, split: Split) -> list[int] | None:
        """Return the number of sequences of each class in a split; None where they are not counted."""
        return None

    def ids(self, split: Split) -> list[str]:
        """Return the id of each sequence of a split; by default its index."""
        return [str(index) for index in range(self.size(split))]

    def classes(self, split: Split) -> NDArray[np.int64]:
        """Return the class of each sequence of a split: (sequences,) int64."""
        indices = np.arange(self.size(split))
        return self.generate(self.config.seed, split, indices).classes

    def metadata(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold so that the model can be used alone: plain values."""
        return {"class_names": list(self.class_names)}

    @abstractmethod
    def size(self, split: Split) -> int:
        """Return the number of sequences in a split."""

    @abstractmethod
    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; they do not depend on the machine or on the other indices.

        Args:
            seed: the seed of the data, from 0.
            split: "train", "val" or "test": disjoint random streams of the same seed.
            indices: (sequences,) int64, from 0, in any order; of a fresh task beyond the size of the split.
        """

    @abstractmethod
    def lengths(self, seed: int, split: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of these sequences, in steps, without generating them: (sequences,) int64.

        The arguments are the same as for :meth:`generate`.
        """

    @abstractmethod
    def ceiling(self) -> float | None:
        """Return the expected accuracy of the best possible classifier, or None where it is unknown."""


class GeneratedTask(Task):
    """A task that generates any number of sequences, with lengths drawn uniformly from a range."""

    config: GeneratedDataConfig
    lengths_are_uniform = True

    @property
    def is_fresh(self) -> bool:
        """Whether each epoch of training has sequences of its own, as configured."""
        return self.config.fresh

    def size(self, split: Split) -> int:
        """Return the number of sequences in a split, as configured."""
        return {"train": self.config.train_size, "val": self.config.val_size, "test": self.config.test_size}[split]

    def lengths(self, seed: int, split: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of the sequences with these indices; see :meth:`Task.lengths`."""
        return counter_rng.integers(*self.length_range, seed, split, "length", indices, 1)[:, 0]


def checked_ceiling(task: Task) -> float | None:
    """Return the ceiling of a task as a plain number, or None if it is unknown.

    Raises:
        ConfigError: if it is no accuracy.
    """
    ceiling = task.ceiling()
    if ceiling is None:
        return None
    if not 0 <= float(ceiling) <= 1:
        raise ConfigError(
            f"data.task={task.config.task}: its ceiling is {ceiling}; it has to be from 0 to 1, or None"
        )
    return float(ceiling)


def ceiling_in_words(ceiling: float | None) -> str:
    """Return a ceiling as reports and logs show it: "0.999", or "unknown"."""
    return "unknown" if ceiling is None else f"{ceiling:.3f}"


def refuse_no_sequence(task: Task, sequence: int) -> None:
    """Check that the test split has a sequence with this index.

    Raises:
        ConfigError: if it has none; the message names the option ``--sequence``.
    """
    size = task.size("test")
    if not 0 <= sequence < size:
        raise ConfigError(f"--sequence {sequence}: choose from 0 to {size - 1}; the test split has {size}")
