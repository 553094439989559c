"""Store a value in each of several slots, and tell the value of the slot that is asked for."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Integer, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedTask, LengthRangeConfig, Sequences
from grulab.tasks.registry import register_task

Query = Literal["first", "last", "both"]


@dataclass(frozen=True, config=STRICT)
class SlotsConfig(LengthRangeConfig):
    """The keys of :class:`Slots`."""

    task: Literal["slots"]
    query: Query
    slots: Annotated[Integer, Field(ge=2, le=1000)]
    values: Annotated[Integer, Field(ge=2, le=30)]

    @model_validator(mode="after")
    def _all_slots_have_a_step(self) -> Self:
        fewest = self.slots + 1 + (self.query == "both")
        if self.min_length < fewest:
            raise ValueError(
                f"min_length={self.min_length}: data.slots={self.slots} with data.query={self.query} need {fewest} "
                "steps; raise it, or lower data.slots"
            )
        return self


@register_task(SlotsConfig)
class Slots(GeneratedTask):
    """Tell the value of a slot; which one is asked at the beginning, at the end, or one at each end.

    A step names a slot and its value, both one-hot; or it asks for a slot, with the last feature 1; or it is blank,
    all zeros. Every slot gets a value once, in random order. Training sequence 7, with four slots of
    three values, ``data.query=last`` and 8 steps; slots are letters and values are numbers::

        d2 - - b2 c0 - a0 b?        class 2

    With ``query=both`` the two slots differ and the class is the pair of their values, that of the first question
    times ``values`` plus that of the last. All classes are equally likely, so chance is 1 / ``values``, or the square
    of that. The sequence determines the class: the ceiling is 1.

    It is a task about direction. Whoever reads forwards and is asked first keeps one value; asked last, it has to
    keep all of them, and whoever reads backwards keeps one. :func:`accuracy_with_bits` bounds the accuracy of a
    reader that is asked last and keeps a number of bits. What it proves: a reader that is more accurate has kept more
    bits. What it does not: how many units that takes, for the state of a unit is a number of 32 bits.
    """

    config: SlotsConfig

    def __init__(self, config: SlotsConfig) -> None:
        self.config = config
        self.num_features = config.slots + config.values + 1
        self.num_classes = config.values ** (2 if config.query == "both" else 1)
        self.chance = 1 / self.num_classes
        self.length_range = (config.min_length, config.max_length)

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        config, rows = self.config, np.arange(len(indices))
        lengths = self.lengths(seed, split, indices)
        values = counter_rng.integers(0, config.values - 1, seed, split, "values", indices, config.slots)
        asked = counter_rng.integers(0, config.slots - 1, seed, split, "first query", indices, 1)[:, 0]
        # Another slot than the first.
        gap = counter_rng.integers(1, config.slots - 1, seed, split, "last query", indices, 1)[:, 0]
        other = (asked + gap) % config.slots
        features = np.zeros((len(indices), int(lengths.max(initial=0)), self.num_features), dtype=np.float32)
        if config.query != "last":
            _ask(features, rows, 0, asked)
        if config.query != "first":
            _ask(features, rows, lengths - 1, other)
        places = self._places(seed, split, indices, lengths)
        features[rows[:, None], places, np.arange(config.slots)] = 1
        features[rows[:, None], places, config.slots + values] = 1
        classes = values[rows, asked if config.query == "first" else other]
        if config.query == "both":
            classes = classes + config.values * values[rows, asked]
        return Sequences(features, lengths, classes)

    def _places(
        self, seed: int, split: Split, indices: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the step of each slot, (sequences, slots): different steps of the sequence, none a question's."""
        first = int(self.config.query != "last")
        end = lengths - (self.config.query != "first")
        steps = np.arange(self.length_range[1])
        draws = counter_rng.uniform(seed, split, "places", indices, len(steps))
        draws[(steps < first) | (steps >= end[:, None])] = 2
        return np.argsort(draws, axis=1, kind="stable")[:, : self.config.slots]

    def ceiling(self) -> float:
        """Return 1, because the value of the slot is in the sequence."""
        return 1.0


def _ask(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    steps: int | NDArray[np.int64],
    slots: NDArray[np.int64],
) -> None:
    features[rows, steps, slots] = 1
    features[rows, steps, -1] = 1


def accuracy_with_bits(bits: float, slots: int, values: int) -> float:
    """Return a bound of the accuracy of whoever is asked after all values are gone but ``bits`` bits about them.

    Of a value that is guessed with accuracy p at most h(p) + (1 - p) log2(values - 1) bits are unknown (Fano), which
    is concave in p, so with p the mean over the slots

        slots (log2(values) - h(p) - (1 - p) log2(values - 1)) <= bits;

    for bits, Nayak 1999 (Optimal Lower Bounds for Quantum Automata and Random Access Codes,
    https://arxiv.org/abs/quant-ph/9904093).

    Args:
        bits: from 0.
        slots: number of independent values, equally likely.
        values: number of different values, from 2.
    """
    low, high = 1 / values, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        known = np.log2(values) - _entropy(middle) - (1 - middle) * np.log2(values - 1)
        low, high = (middle, high) if slots * known <= bits else (low, middle)
    return low


def _entropy(p: float) -> float:
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p)) if 0 < p < 1 else 0.0
