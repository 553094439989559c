"""What is refused in the content of a file whatever its form, and what is noted."""

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.flat import FlatSequences, quote, shorten, starts_of

_FEW = 5
# A class with so many times the sequences of another one.
_OUT_OF_BALANCE = 10
_LEAST_RISING = 3
# The confusion matrix and the simple classifiers take memory by the square of their number.
_MOST_CLASSES = 2000


def refuse_odd_content(name: str, flat: FlatSequences) -> None:
    """Check what every file of sequences must hold.

    Args:
        name: of the file, for the messages.
        flat: what was read from it.

    Raises:
        ConfigError: naming what is odd.
    """
    if not len(flat.lengths):
        raise ConfigError(f"{name}: holds no sequence")
    if not flat.feature_names:
        raise ConfigError(f"{name}: has no features: every column has another use")


def refuse_odd_classes(name: str, flat: FlatSequences) -> None:
    """Check that a model can learn to tell the classes apart: there are two or more, and they are no measurements.

    Raises:
        ConfigError: naming what is odd.
    """
    count = len(flat.class_names)
    if count > len(flat.lengths) / 2 and count > 2 and all(map(_is_number, flat.class_names)):
        raise ConfigError(
            f"{name}: {count:,} of {len(flat.lengths):,} labels are different numbers, such as "
            f"{quote(flat.class_names[0])}: they look like measurements, and grulab tells classes apart; "
            "divide them into classes"
        )
    if count > _MOST_CLASSES:
        raise ConfigError(
            f"{name}: has {count:,} different labels; grulab compares at most {_MOST_CLASSES:,} classes"
        )
    if count == 1:
        raise ConfigError(
            f"{name}: every sequence has the label {quote(flat.class_names[0])}; two classes are needed"
        )


def notes(flat: FlatSequences) -> list[str]:
    """Return a line for each thing in the content that is odd, but no mistake."""
    lines = list(flat.notes)
    counts = np.bincount(flat.classes, minlength=len(flat.class_names))
    if few := [name for name, count in zip(flat.class_names, counts, strict=True) if count < _FEW]:
        lines.append(
            f"fewer than {_FEW} sequences have the label {shorten(few)}: nothing can be said of such a class"
        )
    if counts.max() >= _OUT_OF_BALANCE * counts.min():
        most, least = flat.class_names[int(counts.argmax())], flat.class_names[int(counts.argmin())]
        lines.append(
            f"the classes are out of balance: {counts.max():,} sequences of {quote(most)}, {counts.min():,} of "
            f"{quote(least)}; model.class_weights=balanced and checkpoint.monitor=val/macro_f1 weigh them alike"
        )
    if rising := _rising(flat):
        lines.append(
            f"{shorten(rising)}: rises from row to row in every sequence, as a time stamp does; if it is one, leave "
            "it out with data.features, or name it with data.time_column"
        )
    return lines


def _rising(flat: FlatSequences) -> list[str]:
    """Return the features that rise at every step of every sequence."""
    starts = starts_of(flat.lengths)
    if flat.lengths.max() < _LEAST_RISING:
        return []
    inner = np.ones(len(flat.values), bool)
    inner[starts] = False
    names = []
    for column, name in enumerate(flat.feature_names):
        # Most features fall soon; only the others are looked at as a whole.
        values = flat.values[:, column]
        if all(
            bool(_rises(values[start : start + 2**18])[inner[start + 1 : start + 2**18]].all())
            for start in range(0, len(values), 2**18 - 1)
        ):
            names.append(name)
    return names


def _rises(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    # No difference: that of two huge values is beyond 64 bits.
    return np.asarray(values[1:] > values[:-1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
