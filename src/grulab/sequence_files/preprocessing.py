"""From the values of a file to the input of a model: gaps, subsampling, cutting and scaling, in 64 bits."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from grulab.sequence_files.flat import starts_of

Scale = Literal["standard", "robust", "none"]
End = Literal["end", "start"]
# A normal distribution's interquartile range, in standard deviations.
_IQR = 1.3489795003921634
# The square of a value beyond this, or a sum of many, is beyond 64 bits.
_HUGE = 1e150


@dataclass(frozen=True)
class Preprocessing:
    """What is done with the values of each sequence, in this order; plain values, kept in every checkpoint.

    Attributes:
        fill: for each feature the value before its first known one; None if missing values are refused.
        indicators: the features that get an indicator, 1 where their value was missing, after all features.
        every: every so manieth step is kept, beginning with the first.
        max_steps: of those, so many at most; None keeps all.
        cut: which end is cut off.
        center: for each feature what is subtracted.
        spread: for each feature what it is divided by after that.
    """

    fill: list[float] | None
    indicators: list[int]
    every: int
    max_steps: int | None
    cut: End
    center: list[float]
    spread: list[float]

    @property
    def num_features(self) -> int:
        """Number of features of the model's input."""
        return len(self.center) + len(self.indicators)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)

    def lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of sequences of these lengths, in steps of the model's input."""
        return kept_lengths(lengths, self.every, self.max_steps)

    def apply(self, values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the model's input.

        Args:
            values: (steps, features), the steps of some sequences, one after the other.
            lengths: (sequences,), their lengths.

        Returns:
            (steps that are kept, features and indicators) float32.
        """
        gaps = np.isnan(values) if self.fill is not None else None
        if gaps is not None and gaps.any():
            values = filled_forward(values, gaps, lengths, np.array(self.fill))
        kept = kept_steps(lengths, self.every, self.max_steps, self.cut)
        if kept is not None:
            values = values[kept]
        scaled: NDArray[np.float32]
        with np.errstate(over="ignore"):
            scaled = ((values - np.array(self.center)) / np.array(self.spread)).astype(np.float32)
        if not self.indicators:
            return scaled
        assert gaps is not None
        gaps = gaps if kept is None else gaps[kept]
        return np.concatenate([scaled, gaps[:, self.indicators].astype(np.float32)], axis=1)


def is_sound(values: Any, features: int) -> bool:
    """Return whether plain values are the preprocessing of so many features."""
    if not isinstance(values, dict) or values.keys() != Preprocessing.__annotations__.keys():
        return False
    center, spread, fill, indicators = (values[key] for key in ("center", "spread", "fill", "indicators"))
    numbers = [center, spread, *([] if fill is None else [fill])]
    return (
        all(isinstance(part, list) and len(part) == features for part in numbers)
        and all(type(number) in (int, float) and math.isfinite(number) for part in numbers for number in part)
        and all(number > 0 for number in spread)
        and isinstance(indicators, list)
        and all(type(column) is int and 0 <= column < features for column in indicators)
    )


def from_dict(values: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of plain values, as :meth:`Preprocessing.to_dict` gives them."""
    return Preprocessing(**values)


def kept_lengths(lengths: NDArray[np.int64], every: int, max_steps: int | None) -> NDArray[np.int64]:
    """Return the lengths after subsampling and cutting."""
    kept = -(-lengths // every)
    return kept if max_steps is None else np.minimum(kept, max_steps)


def kept_steps(lengths: NDArray[np.int64], every: int, max_steps: int | None, cut: End) -> NDArray[np.int64] | None:
    """Return the positions of the steps that are kept, in the flat arrays; None if all are."""
    if every == 1 and (max_steps is None or not len(lengths) or int(lengths.max()) <= max_steps):
        return None
    all_lengths = -(-lengths // every)
    counts = kept_lengths(lengths, every, max_steps)
    skipped = all_lengths - counts if cut == "start" else np.zeros_like(counts)
    places = np.arange(int(counts.sum())) - np.repeat(starts_of(counts), counts)
    return np.repeat(starts_of(lengths), counts) + (places + np.repeat(skipped, counts)) * every


def filled_forward(
    values: NDArray[np.float64], gaps: NDArray[np.bool_], lengths: NDArray[np.int64], first: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the values with each gap filled by the last known value of its sequence, or by ``first`` before it."""
    starts = starts_of(lengths)
    source = np.where(gaps, 0, np.arange(len(values))[:, None])
    source[starts] = starts[:, None]
    source = np.maximum.accumulate(source, axis=0)
    filled = np.take_along_axis(values, source, axis=0)
    return np.where(np.isnan(filled), first, filled)


def fit(
    values: NDArray[np.float64],
    lengths: NDArray[np.int64],
    train: NDArray[np.int64],
    scale: Scale,
    every: int,
    max_steps: int | None,
    cut: End,
    fill: bool,
    indicators: list[int],
) -> Preprocessing:
    """Return the preprocessing whose centers, spreads and filling values are those of the training steps.

    Only steps that are kept count, and of those only known values. A constant feature becomes 0.

    Args:
        values: (steps, features) of all sequences.
        lengths: (sequences,).
        train: (training sequences,) their positions.
        scale: "standard": mean and standard deviation; "robust": median and interquartile range, as a standard
            deviation; "none".
        every, max_steps, cut, indicators: as in :class:`Preprocessing`.
        fill: whether gaps are filled.
    """
    starts = starts_of(lengths)
    width = values.shape[1]
    mean, spread, center = np.zeros(width), np.ones(width), np.zeros(width)
    chosen = lengths[train]
    rows = _steps_of(starts[train], chosen)
    kept = kept_steps(chosen, every, max_steps, cut)
    rows = rows if kept is None else rows[kept]
    for column in range(width):
        # One feature at a time: a copy of all would take as much memory as the file.
        known = np.asarray(values[:, column])[rows]
        known = known[~np.isnan(known)]
        if not len(known):
            continue
        largest = max(abs(float(known.max())), abs(float(known.min())))
        unit = largest if largest > _HUGE else 1.0
        lowest, is_constant = float(known[0]), bool(known.min() == known.max())
        known = known / unit
        # In 64 bits: as 32-bit floats, ten neighbouring Unix times are one number.
        mean[column] = float(known.mean()) * unit
        if scale == "none":
            continue
        if is_constant:
            center[column] = lowest
            continue
        low, middle, high = np.percentile(known, [25, 50, 75]).tolist() if scale == "robust" else (0.0, 0.0, 0.0)
        center[column] = middle * unit if scale == "robust" else mean[column]
        deviation = float(known.std()) * unit
        width_of_middle = (high - low) / _IQR * unit
        spread[column] = width_of_middle if scale == "robust" and width_of_middle > 0 else deviation
        if not (np.isfinite(spread[column]) and spread[column] > 0):
            # The square of a tiny number is beyond 64 bits.
            spread[column] = largest
    return Preprocessing(
        mean.tolist() if fill else None, list(indicators), every, max_steps, cut, center.tolist(), spread.tolist()
    )


def padded(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return flat sequences, (steps, features), padded with zeros: (sequences, time, features) float32."""
    x = np.zeros((len(lengths), int(lengths.max(initial=0)), values.shape[1]), np.float32)
    x[np.arange(x.shape[1]) < lengths[:, None]] = values
    return x


def _steps_of(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of all steps of these sequences."""
    within = np.arange(int(lengths.sum())) - np.repeat(starts_of(lengths), lengths)
    return np.repeat(starts, lengths) + within
