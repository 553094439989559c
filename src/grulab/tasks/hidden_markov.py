"""Classify sequences by the hidden Markov model that emitted them; only the order of the symbols differs."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Number, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedTask, LengthRangeConfig, Sequences
from grulab.tasks.registry import register_task
from grulab.tasks.symbols import one_hot

# The ceiling is a mean over this many sequences; its standard error is 0.0007 at the default values.
_CEILING_SEQUENCES = 40_000
# Numbers made at once for the ceiling: a few arrays of that many fit in the processor's L2 cache.
_CELLS = 250_000
_CLASSES = 3
# A state is a pair of bits, (previous, current), with the number 2 * previous + current.
_STATES = 4
_PREVIOUS, _CURRENT = np.arange(_STATES) // 2, np.arange(_STATES) % 2
# The next bit after each state if it follows the rule of its class: (classes, states).
_RULES = np.array([_PREVIOUS, 1 - _PREVIOUS, _PREVIOUS ^ _CURRENT])


@dataclass(frozen=True, config=STRICT)
class HiddenMarkovConfig(LengthRangeConfig):
    """The keys of :class:`HiddenMarkov`."""

    task: Literal["hidden_markov"]
    reliability: Annotated[Number, Field(ge=0.5, le=1)]
    emission: Annotated[list[Annotated[Number, Field(ge=0, le=1)]], Field(min_length=2)]

    @model_validator(mode="after")
    def _emission_sums_to_1(self) -> Self:
        if abs(sum(self.emission) - 1) > 1e-9:
            raise ValueError(f"emission={self.emission}: has the sum {sum(self.emission):g}; probabilities have 1")
        return self


@register_task(HiddenMarkovConfig)
class HiddenMarkov(GeneratedTask):
    """Three hidden Markov models over the same symbols; the class is the model.

    A hidden bit changes from step to step. With probability ``reliability`` the next bit follows the rule of the
    class, otherwise it is the opposite bit. The rules and the sequences that follow from them::

        class 0    the previous bit            0 1 0 1 0 1 ..., or all 0, or all 1
        class 1    its opposite                0 0 1 1 0 0 1 1 ...
        class 2    previous xor current bit    0 1 1 0 1 1 0 1 1 ..., or all 0

    Each step emits a symbol, one-hot: the probabilities are ``emission`` with bit 0, and the reverse of ``emission``
    with bit 1. Training sequence 12 at the default values has class 1; ``!`` marks the bits that break the rule::

        bit       0 0 1 1 1 0 0 1 1 0 0 1 1 0 0 0 0 1 1 0 0 0
        break             !                     ! !         !
        symbol    c a c d c a b d d b b d d a b c b d d a a a

    Every transition matrix is doubly stochastic and every sequence starts in the stationary distribution, so a symbol
    has the same frequency in every class and at every step: a logistic regression on symbol counts stays at a loss of
    log 3. A classifier has to read the order, over two steps and through noise.

    The posterior of the class follows from the forward algorithm (Rabiner 1989, Proceedings of the IEEE 77(2),
    section III.A, https://doi.org/10.1109/5.18626), so the ceiling is exact up to the mean over 40,000 sequences:
    0.90 at the default values. The task is this project's own.
    """

    config: HiddenMarkovConfig

    def __init__(self, config: HiddenMarkovConfig) -> None:
        self.config = config
        self.num_features, self.num_classes = len(config.emission), _CLASSES
        self.chance = 1 / _CLASSES
        self.length_range = (config.min_length, config.max_length)
        self._ceiling: float | None = None

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        return self._generate(seed, split, indices)

    def ceiling(self) -> float:
        """Return the expected accuracy of the best possible classifier, from 40,000 sequences.

        The classes are equally frequent, so the best answer is the class with the highest posterior, and it is
        correct with that probability.
        """
        if self._ceiling is None:
            best = []
            pieces = _CEILING_SEQUENCES * self.config.max_length * self.num_features // _CELLS
            for piece in np.array_split(np.arange(_CEILING_SEQUENCES), min(max(pieces, 1), _CEILING_SEQUENCES)):
                sequences = self._generate(0, "ceiling", piece)
                best.append(self.posterior(sequences.features, sequences.lengths).max(axis=1))
            self._ceiling = float(np.concatenate(best).mean())
        return self._ceiling

    def transitions(self) -> NDArray[np.float64]:
        """Return the probability of each state after each state: (classes, states, states)."""
        after = np.arange(_STATES)
        # The current bit becomes the previous one.
        is_possible = _PREVIOUS[after] == _CURRENT[:, None]
        follows = _CURRENT[after] == _RULES[:, :, None]
        return np.where(is_possible, np.where(follows, self.config.reliability, 1 - self.config.reliability), 0.0)

    def emissions(self) -> NDArray[np.float64]:
        """Return the probability of each symbol in each state: (states, symbols)."""
        emission = np.array(self.config.emission)
        return np.where(_CURRENT[:, None] == 0, emission, emission[::-1])

    def posterior(self, features: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of each class given the whole sequence: (sequences, classes)."""
        # The longest first, so that the sequences with a given step are the first ones.
        order = np.argsort(-lengths, kind="stable")
        ends = np.searchsorted(-lengths[order], -np.arange(features.shape[1]), side="left")
        # (time, sequences, states): the probability of the step's symbol in each state.
        likelihoods = (features[order].astype(np.float64) @ self.emissions().T).transpose(1, 0, 2)
        transitions = self.transitions()
        states = np.full((_CLASSES, len(features), _STATES), 1 / _STATES)
        log_likelihood = np.zeros((_CLASSES, len(features)))
        for step, end in enumerate(ends):
            predicted = states[:, :end] @ transitions if step else states
            joint = predicted[:, :end] * likelihoods[step, :end]
            evidence = joint.sum(axis=2)
            # A sequence that is impossible in a class has a likelihood of 0 in it, and no state.
            with np.errstate(divide="ignore"):
                log_likelihood[:, :end] += np.log(evidence)
            states = joint / np.where(evidence > 0, evidence, 1)[:, :, None]
        likelihood = np.exp(log_likelihood - log_likelihood.max(axis=0))
        posterior = np.empty((len(features), _CLASSES))
        posterior[order] = (likelihood / likelihood.sum(axis=0)).T
        return posterior

    def _generate(self, seed: int, stream: str, indices: NDArray[np.int64]) -> Sequences:
        classes = counter_rng.integers(0, _CLASSES - 1, seed, stream, "class", indices, 1)[:, 0]
        lengths = self.lengths(seed, stream, indices)
        longest = int(lengths.max(initial=0))
        start = counter_rng.integers(0, _STATES - 1, seed, stream, "start", indices, 1)[:, 0]
        breaks = counter_rng.uniform(seed, stream, "rule", indices, longest) > self.config.reliability
        draws = counter_rng.uniform(seed, stream, "symbol", indices, longest)

        bits = np.zeros((len(indices), longest), dtype=np.int64)
        state = start
        for step in range(longest):
            if step > 0:
                state = 2 * _CURRENT[state] + (_RULES[classes, state] ^ breaks[:, step])
            bits[:, step] = _CURRENT[state]
        # The symbol is the number of cumulative probabilities below the draw; the last one, 1, is never below.
        cumulative = np.cumsum(self.emissions()[:2], axis=1)[:, :-1]  # (bits, symbols - 1)
        symbols = (draws[:, :, None] > cumulative[bits]).sum(axis=2)
        return Sequences(one_hot(symbols, lengths, self.num_features), lengths, classes)
