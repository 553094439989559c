"""Multiply the elements of a group: the product of a word over S3, the permutations of three things."""

from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedTask, LengthRangeConfig, Sequences
from grulab.tasks.registry import register_task
from grulab.tasks.symbols import one_hot

# Each element is where it takes 0, 1 and 2; in lexicographic order, so that element 0 changes nothing.
ELEMENTS = list(permutations(range(3)))
# PRODUCT[first, then]: the element that does what the first and then the other does.
PRODUCT = np.array(
    [[ELEMENTS.index(tuple(then[place] for place in first)) for then in ELEMENTS] for first in ELEMENTS]
)


@dataclass(frozen=True, config=STRICT)
class WordConfig(LengthRangeConfig):
    """The keys of :class:`Word`."""

    task: Literal["word"]


@register_task(WordConfig)
class Word(GeneratedTask):
    """Compute the product of a word over S3, the smallest group in which the order of the factors matters.

    Each step is one of the six elements of the group, one-hot in the order of ``ELEMENTS``; the class is their
    product. Training sequence 13, with the product so far::

        factors   5 3 0 3 3 2
        so far    5 1 1 2 5 4        class 4

    Every element is equally likely at every step, so is every product: chance is 1/6, also for whoever knows all
    steps but one. The word determines its product: the ceiling is 1. A classifier has to keep one of six states and
    to change it by what it reads, which no sum over the steps can do, for the group is not commutative. Word problems
    of groups tell apart what models can track (Merrill, Petty and Sabharwal 2024, The Illusion of State in
    State-Space Models, https://arxiv.org/abs/2404.08819); the separation proved there is for groups that are not
    solvable, and S3 is. Words of length 1, whose product is the element itself, are where training begins: keep
    ``data.min_length=1``.
    """

    config: WordConfig

    def __init__(self, config: WordConfig) -> None:
        self.config = config
        self.num_features = self.num_classes = len(ELEMENTS)
        self.chance = 1 / len(ELEMENTS)
        self.length_range = (config.min_length, config.max_length)

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        lengths = self.lengths(seed, split, indices)
        longest = int(lengths.max(initial=0))
        symbols = counter_rng.integers(0, len(ELEMENTS) - 1, seed, split, "elements", indices, longest)
        product = np.zeros(len(indices), dtype=np.int64)
        for step in range(longest):
            product = np.where(step < lengths, PRODUCT[product, symbols[:, step]], product)
        return Sequences(one_hot(symbols, lengths, self.num_features), lengths, product)

    def ceiling(self) -> float:
        """Return 1, because the word determines its product."""
        return 1.0
