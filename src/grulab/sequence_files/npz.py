"""Read the flat arrays of an .npz file, without pickle."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.sequence_files.flat import (
    NO_SPLIT,
    FlatSequences,
    encode,
    encode_splits,
    quote,
    reason,
    refuse_infinite,
    starts_of,
)
from grulab.sequence_files.rows import refuse_odd_texts

NEEDED = ("values", "lengths", "labels")
OPTIONAL = ("split", "group", "id", "feature_names", "class_names")
_RECIPE = (
    "an array of objects, which only pickle could read, and a pickle may hold code; write "
    "values=np.concatenate(sequences), lengths=[len(s) for s in sequences] and texts as np.array(labels, dtype=str)"
)


def read_npz(path: Path, name: str) -> FlatSequences:
    """Read an .npz file: ``values`` (steps, features), ``lengths`` and ``labels`` (sequences,).

    It may also have ``split``, ``group`` and ``id`` (sequences,), ``feature_names`` (features,), and ``class_names``,
    to which the labels are then positions.

    Args:
        path: of the file.
        name: of the file, for the messages.

    Raises:
        ConfigError: naming what is odd.
    """
    arrays = read_arrays(path, name)
    if left := [key for key in NEEDED if key not in arrays]:
        raise ConfigError(f"{name}: has no array {left[0]}; {', '.join(NEEDED)} are needed")
    return from_arrays(name, arrays)


def read_arrays(path: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file that grulab knows.

    Raises:
        ConfigError: if it cannot be read, or has an array of objects or of another name.
    """
    arrays = {}
    try:
        # NumPy leaves a file open that it opens itself and that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ConfigError(f"{name}: is one array, and no .npz file of several; np.savez writes one")
            if len(set(archive.files)) < len(archive.files):
                raise ConfigError(f"{name}: has an array twice")
            for key in archive.files:
                if key not in (*NEEDED, *OPTIONAL):
                    raise ConfigError(
                        f"{name}: has the array {quote(key)}, which is none of {', '.join((*NEEDED, *OPTIONAL))}"
                    )
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise ConfigError(f"{name}: {key} is no array of NumPy's")
    except ConfigError:
        raise
    except MemoryError:
        raise ConfigError(f"{name}: is larger than the memory of this machine") from None
    # Besides those of files and archives, zlib has errors of its own, and the reader of headers raises what Python's
    # parser does.
    except Exception as error:
        if "allow_pickle" in str(error):
            raise ConfigError(f"{name}: has {_RECIPE}") from None
        raise ConfigError(f"{name}: cannot be read as an .npz file ({reason(error)})") from None
    return arrays


def from_arrays(name: str, arrays: Mapping[str, NDArray[Any]]) -> FlatSequences:
    """Return the sequences in arrays with the names of an .npz file.

    Raises:
        ConfigError: naming the array that is odd.
    """
    values, lengths = _values(name, arrays["values"]), _lengths(name, arrays)
    count = len(lengths)
    for key in ("labels", "split", "group", "id"):
        if key in arrays and arrays[key].shape != (count,):
            raise ConfigError(
                f"{name}: {key} has the shape {arrays[key].shape}, not ({count},), one for each sequence"
            )
    if int(lengths.sum()) != len(values):
        raise ConfigError(f"{name}: lengths add up to {int(lengths.sum()):,} steps, and values has {len(values):,}")
    ids = _texts(name, "id", arrays["id"]) if "id" in arrays else np.arange(1, count + 1).astype(np.str_)
    if (ids == "").any():
        raise ConfigError(f"{name}: sequence {int(np.argmax(ids == '')) + 1}: has no id")
    if len(np.unique(ids)) < count:
        different, counts = np.unique(ids, return_counts=True)
        raise ConfigError(f"{name}: the id {quote(different[np.argmax(counts > 1)])} is there more than once")
    features = _names(name, "feature_names", arrays, values.shape[1])

    def describe(sequence: int) -> str:
        return f"{name}: sequence {sequence + 1} (id {ids[sequence]})"

    if (lengths < 1).any():
        raise ConfigError(f"{describe(int(np.argmax(lengths < 1)))}: is empty: it has {int(lengths.min())} steps")
    starts = starts_of(lengths)

    def describe_step(step: int) -> str:
        sequence = int(np.searchsorted(starts, step, side="right")) - 1
        return f"{describe(sequence)}, step {step - int(starts[sequence]) + 1}"

    missing = refuse_infinite(values, describe_step, features)
    classes, class_names = encode(_labels(name, arrays, describe))
    splits = np.full(count, NO_SPLIT, np.int8)
    if "split" in arrays:
        splits = encode_splits(_texts(name, "split", arrays["split"]), describe)
    groups, group_names = None, list[str]()
    if "group" in arrays:
        groups, group_names = encode(_texts(name, "group", arrays["group"]))
    return FlatSequences(
        values, lengths, classes, class_names, ids, splits, groups, group_names, features, missing,
        has_names="feature_names" in arrays,
    )  # fmt: skip


def _values(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    _refuse_objects(name, "values", array)
    if array.dtype.kind not in "fiub":
        raise ConfigError(f"{name}: values is {array.dtype}; numbers are needed")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        hint = ""
        if array.ndim == 3:
            hint = "; of padded sequences keep the steps alone: values=padded[np.arange(time) < lengths[:, None]]"
        raise ConfigError(f"{name}: values has the shape {array.shape}, not (steps, features){hint}")
    if not array.shape[1]:
        raise ConfigError(f"{name}: values has no features: its shape is {array.shape}")
    # More than 64 bits may hold what is infinite in 64.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float64)


def _lengths(name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    array = arrays["lengths"]
    _refuse_objects(name, "lengths", array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ConfigError(f"{name}: lengths is {array.dtype} of shape {array.shape}; whole numbers are needed")
    if len(array) and (int(array.max()) >= 2**40 or int(array.min()) < 0):
        raise ConfigError(f"{name}: lengths holds {int(array.min())} to {int(array.max())}; no sequence has such")
    return array.astype(np.int64)


def _labels(name: str, arrays: Mapping[str, NDArray[Any]], describe: Any) -> NDArray[np.str_]:
    labels = arrays["labels"]
    if "class_names" not in arrays:
        texts = _texts(name, "labels", labels)
    else:
        names = _texts(name, "class_names", arrays["class_names"])
        if labels.dtype.kind not in "iu":
            raise ConfigError(f"{name}: labels is {labels.dtype}; with class_names they are positions from 0")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
            raise ConfigError(f"{name}: labels holds {labels.min()} to {labels.max()}; there are {len(names)} names")
        if len(np.unique(names)) < len(names):
            raise ConfigError(f"{name}: class_names holds a name twice")
        texts = names[labels]
    if (texts == "").any():
        raise ConfigError(f"{describe(int(np.argmax(texts == '')))}: has no label")
    return texts


def _names(name: str, key: str, arrays: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    if key not in arrays:
        return [f"feature_{number}" for number in range(1, count + 1)]
    names = _texts(name, key, arrays[key])
    if names.shape != (count,):
        raise ConfigError(f"{name}: {key} has the shape {names.shape}, and values has {count} features")
    if len(np.unique(names)) < count:
        raise ConfigError(f"{name}: {key} holds a name twice")
    if (names == "").any():
        raise ConfigError(f"{name}: {key} holds an empty name")
    return [str(text) for text in names]


def _texts(name: str, key: str, array: NDArray[Any]) -> NDArray[np.str_]:
    """Return an array as text: whole numbers as such, also those that are stored as floats."""
    _refuse_objects(name, key, array)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.round(array)).all() and (np.abs(array) < 2**53).all()):
            if key == "labels":
                raise ConfigError(
                    f"{name}: labels holds {_odd_number(array)}: grulab tells classes apart; divide measurements "
                    "into classes"
                )
            raise ConfigError(f"{name}: {key} holds {_odd_number(array)}; texts or whole numbers are needed")
        array = array.astype(np.int64)
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: {key} holds bytes that are not UTF-8; write texts") from None
    if array.dtype.kind not in "Uiub":
        raise ConfigError(f"{name}: {key} is {array.dtype}; texts or whole numbers are needed")
    texts = np.ascontiguousarray(array.astype("<U"))
    if texts.size and int(texts.reshape(-1).view("<u4").max()) > sys.maxunicode:
        raise ConfigError(f"{name}: {key} holds what is no text: a character beyond Unicode")
    refuse_odd_texts(name, key, texts.reshape(-1).tolist())
    return texts.astype(np.str_, copy=False)


def _odd_number(array: NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):
        odd = ~np.isfinite(array) | (array != np.round(array)) | (np.abs(array) >= 2**53)
    return float(array[odd].flat[0])


def _refuse_objects(name: str, key: str, array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        raise ConfigError(f"{name}: {key} is {_RECIPE}")
