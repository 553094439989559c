"""The statistics of a report: 95 % intervals over seeds, and differences over matched pairs."""

import numpy as np
import pandas as pd
from scipy import special

_LEVEL = 0.95


def interval(values: "pd.Series[float]") -> float:
    """Return half the width of the 95 % interval of the mean (Student's t); NaN for a single value."""
    if len(values) < 2:
        return float("nan")
    return float(special.stdtrit(len(values) - 1, (1 + _LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values)))


def difference(one: pd.DataFrame, other: pd.DataFrame, metric: str, on: list[str]) -> tuple[float, float, int]:
    """Return the mean of one - other over pairs that agree in ``on``, half its 95 % interval, and the pair count."""
    pairs = one.merge(other, on=on, suffixes=("_one", "_other"))
    differences = pairs[f"{metric}_one"] - pairs[f"{metric}_other"]
    return float(differences.mean()), interval(differences), len(pairs)
