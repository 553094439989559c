"""Add up a function of each step that is no sum of its bits: XOR within a step, a sum modulo 3 over steps."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Integer, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedTask, LengthRangeConfig, Sequences
from grulab.tasks.registry import register_task

_CLASSES = 3
_MIXED = 100


@dataclass(frozen=True, config=STRICT)
class StepXorConfig(LengthRangeConfig):
    """The keys of :class:`StepXor`."""

    task: Literal["step_xor"]
    bits: Annotated[Integer, Field(ge=1, le=64)]


@register_task(StepXorConfig)
class StepXor(GeneratedTask):
    """Count the steps with an odd number of set bits, modulo 3.

    Each step has ``bits`` random bits, as features of -1 and 1. Training sequence 32::

        bits      --+ --- ++- +-- +-- +++ +--
        odd        1   0   0   1   1   1   1
        so far     1   1   1   2   0   1   2        class 2

    What changes from step to step is simple, a counter of three states; what a step means is not, for the parity of
    its bits cannot be read off by one layer of weights (Minsky and Papert 1969, Perceptrons). The sequence determines
    the class: the ceiling is 1. Of n steps the number with an odd count is binomial, n times 1/2, so the classes of
    short sequences are not equally likely; chance is the probability of the most frequent class.
    """

    config: StepXorConfig

    def __init__(self, config: StepXorConfig) -> None:
        self.config = config
        self.num_features, self.num_classes = config.bits, _CLASSES
        self.length_range = (config.min_length, config.max_length)
        self.chance = float(class_probabilities(*self.length_range).max())

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        lengths = self.lengths(seed, split, indices)
        longest = int(lengths.max(initial=0))
        draws = counter_rng.bits(seed, split, "bits", indices, longest)  # (sequences, time), 64 bits a step
        bits = (draws[:, :, None] >> np.arange(self.config.bits, dtype=np.uint64)) & np.uint64(1)
        is_step = np.arange(longest) < lengths[:, None]
        odd = (bits.sum(axis=2) % 2).astype(np.int64)
        features = np.where(is_step[:, :, None], 2 * bits.astype(np.float32) - 1, np.float32(0))
        return Sequences(features, lengths, (odd * is_step).sum(axis=1) % _CLASSES)

    def ceiling(self) -> float:
        """Return 1, because the bits determine the class."""
        return 1.0


def class_probabilities(shortest: int, longest: int) -> NDArray[np.float64]:
    """Return the probability of each class, (3,), if every length of a range is equally likely."""
    counter = np.eye(_CLASSES)[0]
    total = np.zeros(_CLASSES)
    for steps in range(1, min(longest, _MIXED) + 1):
        counter = (counter + np.roll(counter, 1)) / 2
        total += counter * (steps >= shortest)
    # What is left of the start shrinks by half with each step.
    total += max(0, longest - max(shortest - 1, _MIXED)) / _CLASSES
    probabilities: NDArray[np.float64] = total / total.sum()
    return probabilities
