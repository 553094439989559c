"""The statistics of a report: 95 % intervals over seeds, and differences over matched pairs."""

import numpy as np
import pandas as pd
from scipy import special

_LEVEL = 0.95
_FEWEST_SEEDS = 3


def interval(values: "pd.Series[float]") -> float:
    """Return half the width of the 95 % interval of the mean (Student's t); NaN for a single value."""
    if len(values) < 2:
        return float("nan")
    return float(special.stdtrit(len(values) - 1, (1 + _LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values)))


def bounds(values: "pd.Series[float]", is_share: bool) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the mean; of fewer than 3 values, the lowest and the highest.

    Two values have an interval of twelve times their distance, which tells nothing.

    Args:
        values: one for each seed.
        is_share: whether no value is outside 0 to 1, so that no end is either; others are at least 0.
    """
    if len(values) < _FEWEST_SEEDS:
        return float(values.min()), float(values.max())
    mean, half = float(values.mean()), interval(values)
    return max(0.0, mean - half), min(1.0, mean + half) if is_share else mean + half


def difference(one: pd.DataFrame, other: pd.DataFrame, metric: str, on: list[str]) -> tuple[float, float, int]:
    """Return the mean of one - other over pairs that agree in ``on``, half its 95 % interval, and the pair count."""
    pairs = one.merge(other, on=on, suffixes=("_one", "_other"))
    differences = pairs[f"{metric}_one"] - pairs[f"{metric}_other"]
    return float(differences.mean()), interval(differences), len(pairs)
