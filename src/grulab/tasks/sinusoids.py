"""Classify noisy sinusoids of random phase by their frequency; the default task."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Count, Number, Split
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedTask, LengthRangeConfig, Sequences
from grulab.tasks.registry import register_task

# The ceiling is a mean over this many sequences. A probability has a standard deviation of at most 0.5, so the mean
# has a standard error of at most 0.008, where the ceiling is low; at the default noise it is under 0.0001.
_CEILING_SEQUENCES = 4000
_FEWEST_PHASES = 48
# Maximum number of values in memory during the integration.
_INTEGRATED_CELLS = 250_000
# Maximum number of values generated at once: a few arrays of this size fit in a processor's L2 cache.
_CELLS = 32_768


@dataclass(frozen=True, config=STRICT)
class SinusoidsConfig(LengthRangeConfig):
    """The keys of :class:`Sinusoids`."""

    task: Literal["sinusoids"]
    num_features: Count
    frequencies: Annotated[list[Annotated[Number, Field(ge=0, le=0.5)]], Field(min_length=2)]
    # With less noise the ceiling is 1, and computing it takes minutes.
    noise: Annotated[Number, Field(ge=0.01, le=1e6)]

    @model_validator(mode="after")
    def _frequencies_differ(self) -> Self:
        if len(set(self.frequencies)) < len(self.frequencies):
            raise ValueError(
                f"frequencies={self.frequencies}: a frequency stands there twice; each class needs its own"
            )
        return self


@register_task(SinusoidsConfig)
class Sinusoids(GeneratedTask):
    """Sinusoids whose class is their frequency, with a random phase per feature and Gaussian noise on every value.

    One feature of one sequence of each class (frequencies 0.1, 0.25 and 0.4 cycles per step), without noise::

        class 0    0.3  0.8  1.0  0.8  0.3 -0.3 -0.8 -1.0 -0.8      slow
        class 1    0.5  0.9 -0.5 -0.9  0.5  0.9 -0.5                a quarter turn a step
        class 2    0.6 -0.9  0.9 -0.6  0.0  0.6                     fast: the sign flips nearly every step

    The phase is uniform and differs from feature to feature, so neither a single value nor the mean and the spread of
    a feature over time identify the class: the classifier has to use the order of the values. A logistic regression
    on each feature's mean and standard deviation reaches an accuracy of 0.39 where the best classifier reaches 0.9999
    (tests/test_tasks.py measures both).

    The task is this project's own: the usual toy problem for recurrent classifiers, with a known best accuracy.
    """

    config: SinusoidsConfig

    def __init__(self, config: SinusoidsConfig) -> None:
        self.config = config
        self.num_features, self.num_classes = config.num_features, len(config.frequencies)
        self.chance = 1 / self.num_classes
        self.length_range = (config.min_length, config.max_length)
        self._ceiling: float | None = None

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices; see :meth:`Task.generate`."""
        return self._generate(seed, split, indices)

    def ceiling(self) -> float:
        """Return the expected accuracy of the best possible classifier, estimated from 4000 sequences.

        The classes are equally frequent, so the best classifier predicts the class of the highest likelihood, and is
        right with the posterior probability of that class. The likelihood of a feature is an integral over its
        unknown phase, which is computed numerically.
        """
        if self._ceiling is None:
            self._ceiling = self._compute_ceiling()
        return self._ceiling

    def _compute_ceiling(self) -> float:
        # In pieces, so that long sequences of many features need little memory.
        cells = _CEILING_SEQUENCES * self.num_features * max(self._phases(), self.config.max_length)
        pieces = np.array_split(
            np.arange(_CEILING_SEQUENCES), min(-(-cells // _INTEGRATED_CELLS), _CEILING_SEQUENCES)
        )
        samples = [self._generate(0, "ceiling", piece) for piece in pieces]
        best = [self.posterior(sample.features, sample.lengths).max(axis=1) for sample in samples]
        return float(np.concatenate(best).mean())

    def posterior(self, features: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of each class given the whole sequence: (sequences, classes) float64."""
        steps = np.arange(features.shape[1])
        valid = (steps < lengths[:, None]).astype(np.float64)  # (sequences, time)
        products = (features * valid[:, :, None]).transpose(0, 2, 1) / self.config.noise**2
        log_likelihood = np.zeros((len(features), self.num_classes))
        phases = 2 * np.pi * np.arange(self._phases()) / self._phases()
        for index, frequency in enumerate(self.config.frequencies):
            # The sums over time of x sin(angle + phase) and of sin(angle + phase)^2, from sums without the phase:
            # the number of phases grows with the length too.
            angles = 2 * np.pi * frequency * steps
            sine, cosine = (np.matmul(products, wave(angles))[:, :, None] for wave in (np.sin, np.cos))
            double_sine, double_cosine = ((valid @ wave(2 * angles))[:, None] for wave in (np.sin, np.cos))
            energy = lengths[:, None] - double_cosine * np.cos(2 * phases) + double_sine * np.sin(2 * phases)
            # |x - wave|^2 without |x|^2, which is the same for every class: (sequences, features, phases)
            exponent = sine * np.cos(phases) + cosine * np.sin(phases)
            exponent -= (energy / (4 * self.config.noise**2))[:, None, :]
            highest = exponent.max(axis=2)
            exponent -= highest[:, :, None]
            integral = np.exp(exponent, out=exponent).mean(axis=2)
            log_likelihood[:, index] = (highest + np.log(integral)).sum(axis=1)
        likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
        return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))

    def _phases(self) -> int:
        """Return the number of steps of the numerical integral over the phase.

        The likelihood has a peak about noise / (2 pi sqrt(time / 2)) turns wide; it is smooth and periodic, so a
        step of that width already has a relative error of only about exp(-2 pi^2) = 3e-9.
        """
        peak = self.config.noise / (2 * np.pi * np.sqrt(self.config.max_length / 2))
        return max(_FEWEST_PHASES, int(np.ceil(1 / peak)))

    def _generate(self, seed: int, stream: str, indices: NDArray[np.int64]) -> Sequences:
        classes = counter_rng.integers(0, self.num_classes - 1, seed, stream, "class", indices, 1)[:, 0]
        lengths = self.lengths(seed, stream, indices)
        features = np.zeros((len(indices), lengths.max(initial=0), self.num_features), dtype=np.float32)
        # Sequences of similar length are generated together, so that few padding steps are computed.
        order = np.argsort(-lengths, kind="stable")
        rows_at_once = max(1, _CELLS // (self.num_features * self.config.max_length))
        for start in range(0, len(order), rows_at_once):
            rows = order[start : start + rows_at_once]
            features[rows, : lengths[rows[0]]] = self._values(
                seed, stream, indices[rows], classes[rows], lengths[rows]
            )
        return Sequences(features, lengths, classes)

    def _values(
        self,
        seed: int,
        stream: str,
        indices: NDArray[np.int64],
        classes: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the values of sequences that are sorted longest first: (sequences, time, features), padding 0."""
        shape = (len(indices), lengths[0], self.num_features)
        steps = np.arange(lengths[0])
        turns = np.array(self.config.frequencies)[classes, None] * steps  # (sequences, time)
        phases = counter_rng.uniform(seed, stream, "phase", indices, self.num_features)
        values = counter_rng.sine(turns[:, :, None] + phases[:, None, :])
        noise = counter_rng.normal(seed, stream, "noise", indices, shape[1] * shape[2]).reshape(shape)
        noise *= self.config.noise
        values += noise
        values[steps >= lengths[:, None]] = 0
        return values
