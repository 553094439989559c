"""Remember a symbol over many distractors."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Count, Integer, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedDataConfig, GeneratedTask, Sequences
from grulab.tasks.registry import register_task
from grulab.tasks.symbols import one_hot

_DISTRACTORS = 4


@dataclass(frozen=True, config=STRICT)
class KeepConfig(GeneratedDataConfig):
    """The keys of :class:`Keep`."""

    task: Literal["keep"]
    symbols: Annotated[Integer, Field(ge=2, le=1000)]
    delay: Count
    min_delay: Count | None

    @model_validator(mode="after")
    def _delays_are_a_range(self) -> Self:
        if self.min_delay is not None and self.min_delay > self.delay:
            raise ValueError(
                f"min_delay={self.min_delay}: is over data.delay={self.delay}; lower it, or leave it null"
            )
        return self


@register_task(KeepConfig)
class Keep(GeneratedTask):
    """Name the first symbol at the end of the sequence, ``delay`` distractors later.

    Each step is one of ``symbols`` (here digits), of four distractors or the end mark ``.``, one-hot in this order.
    Training sequence 0 with ``data.delay=20``::

        3 c b a c c a d a a d c a c a c a b a a a .        class 3

    The number of distractors is ``delay``, or any from ``min_delay`` on with the same probability. The classes are
    equally likely and the first symbol determines the class, so chance is 1 / ``symbols`` and the ceiling is 1. It
    asks for memory of one symbol, log2(``symbols``) bits, and for nothing else: what grows with ``delay`` is the
    number of steps that a gradient has to come back. After experiment 2 of Hochreiter and Schmidhuber 1997, Neural
    Computation 9(8), https://doi.org/10.1162/neco.1997.9.8.1735.
    """

    config: KeepConfig

    def __init__(self, config: KeepConfig) -> None:
        self.config = config
        self.num_features, self.num_classes = config.symbols + _DISTRACTORS + 1, config.symbols
        self.chance = 1 / config.symbols
        self.length_range = ((config.min_delay or config.delay) + 2, config.delay + 2)

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        lengths = self.lengths(seed, split, indices)
        classes = counter_rng.integers(0, self.num_classes - 1, seed, split, "symbol", indices, 1)[:, 0]
        longest = int(lengths.max(initial=1))
        symbols = counter_rng.integers(0, _DISTRACTORS - 1, seed, split, "distractors", indices, longest)
        symbols += self.num_classes
        symbols[:, 0] = classes
        symbols[np.arange(len(indices)), lengths - 1] = self.num_features - 1
        return Sequences(one_hot(symbols, lengths, self.num_features), lengths, classes)

    def ceiling(self) -> float:
        """Return 1, because the first symbol is the class."""
        return 1.0
