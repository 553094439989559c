"""Sequences in memory, kept in the cache as if a file had held them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files import cache, checks, npz

_NAME = "from_arrays"


def keep_arrays(sequences: Sequence[NDArray[Any]], labels: Sequence[Any], given: Mapping[str, Sequence[Any]]) -> str:
    """Check sequences and keep them in the cache; return the hash of their content.

    Args:
        sequences: one array (steps, features) for each sequence.
        labels: the class of each.
        given: ``split``, ``group``, ``id`` and ``feature_names``, as in an .npz file.

    Raises:
        ConfigError: naming what is odd.
    """
    arrays: dict[str, NDArray[Any]] = {}
    parts = [_matrix(place, sequence) for place, sequence in enumerate(sequences)]
    if not parts:
        raise ConfigError(f"{_NAME}: holds no sequence")
    widths = [part.shape[1] for part in parts]
    if odd := next((place for place, width in enumerate(widths) if width != widths[0]), None):
        raise ConfigError(f"{_NAME}: sequence {odd} has {widths[odd]} features, and sequence 0 has {widths[0]}")
    arrays["values"] = np.concatenate(parts)
    arrays["lengths"] = np.array([len(part) for part in parts], np.int64)
    for key, values in {"labels": labels, **given}.items():
        # A list of texts and numbers would become an array of objects.
        arrays[key] = np.array([str(value) for value in values]) if key != "labels" else _labels(values)
    flat = npz.from_arrays(_NAME, arrays)
    checks.refuse_odd_content(_NAME, flat)
    stored = cache.keep(replace(flat, notes=checks.notes(flat)))
    if stored.folder is None:
        raise ConfigError(f"{_NAME}: the cache cannot be written to; name a folder with room in XDG_CACHE_HOME")
    return stored.content


def _matrix(place: int, sequence: Any) -> NDArray[Any]:
    try:
        array = np.asarray(sequence)
    # Tensors of other libraries raise errors of any kind, such as one that requires a gradient.
    except Exception:
        raise ConfigError(f"{_NAME}: sequence {place} is no array of (steps, features)") from None
    if isinstance(sequence, np.ma.MaskedArray):
        raise ConfigError(f"{_NAME}: sequence {place} is masked; write NaN, with data.missing=fill")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise ConfigError(f"{_NAME}: sequence {place} is {array.dtype} of shape {array.shape}, not (steps, features)")
    return array


def _labels(labels: Sequence[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ConfigError(f"{_NAME}: labels are no list of texts or whole numbers, one for each sequence") from None
    return np.array([str(label) for label in labels]) if array.dtype.hasobject else array
