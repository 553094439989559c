"""What every task offers: sequences by index, and the scores that bound what can be learned."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grulab.config.schema import Split
from grulab.tasks import counter_rng


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

    Attributes:
        num_features: width of a step.
        num_classes: how many answers there are.
        chance: accuracy of the best answer given before looking.
        length_range: shortest and longest sequence there can be, in steps.
    """

    num_features: int
    num_classes: int
    chance: float
    length_range: tuple[int, int]

    @abstractmethod
    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices: the same on every machine, whichever others are asked for.

        Args:
            seed: which world, from 0.
            split: "train", "val" or "test": disjoint streams of the same world.
            indices: (sequences,) int64, from 0, in any order.
        """

    def lengths(self, seed: int, split: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many steps the sequences with these indices have, without making them: (sequences,) int64.

        Every length of the range is equally likely. The arguments are those of :meth:`generate`.
        """
        return counter_rng.integers(*self.length_range, seed, split, "length", indices, 1)[:, 0]

    @abstractmethod
    def ceiling(self) -> float:
        """Return the expected accuracy of the best possible classifier."""
