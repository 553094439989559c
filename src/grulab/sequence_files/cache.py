"""Files are parsed once: their arrays are kept in the user's cache folder and mapped into memory from there.

A file is recognised by its path, size and times, as by git; its sequences by a hash of their content. So the jobs of
a sweep share the arrays, and a file that changes is parsed again.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from grulab.config_error import ConfigError
from grulab.field_types import SPLITS
from grulab.sequence_files import checks, content, npz, ts
from grulab.sequence_files.columns import Columns
from grulab.sequence_files.flat import NO_SPLIT, FlatSequences, reason
from grulab.sequence_files.long_table import SUFFIXES, read_long_table
from grulab.system.atomic import write_atomically
from grulab.system.printable import printable
from grulab.system.regular_file import open_regular, read_regular

# Of the folders' layout: an older one is left alone.
_VERSION = 2
# A file that was changed so shortly before it was read may be changed again without a trace in its times.
_TRUSTED_AFTER_SECONDS = 2.0
_ARRAYS = ("values", "lengths", "classes", "splits", "groups", "keys")
_KINDS = {"values": "<f8", "lengths": "<i8", "classes": "<i8", "splits": "|i1", "groups": "<i8", "keys": "<u8"}


@dataclass(frozen=True)
class Stored:
    """Sequences with their identity.

    Attributes:
        flat: the sequences in canonical order, mapped from the cache if they could be kept there.
        keys: (sequences,) a random number for each, which depends on its content alone.
        content: the hash of all.
        folder: of the cache where results about these sequences can be kept; None if there is none.
    """

    flat: FlatSequences
    keys: NDArray[np.uint64]
    content: str
    folder: Path | None


_MAX_NAMES = 2**28


class _Names(TypedDict):
    class_names: list[str]
    group_names: list[str]
    feature_names: list[str]
    first_missing: str | None
    has_names: bool
    notes: list[str]
    content: str


_SCHEMA: TypeAdapter[_Names] = TypeAdapter(_Names)

# The sequences of the file that was parsed last, if they could not be kept in the cache.
_LAST_PARSED: dict[str, Stored] = {}


def read_file(path: Path, labels: Path | None, columns: Columns) -> Stored:
    """Return the sequences of a file, from the cache if they are there.

    Args:
        path: a .csv, .tsv, .parquet, .npz or .ts file.
        labels: a table of labels; None if the file has them.
        columns: of a table.

    Raises:
        ConfigError: naming what is odd in the file.
    """
    files = _files(path, labels)
    signatures = [_signature(file) for file in files]
    key = _hash(json.dumps([_VERSION, [str(file.resolve()) for file in files], signatures, asdict(columns)]))
    root = folder_of_cache()
    if root is not None and (found := _from_cache(root, key)) is not None:
        return found
    if key in _LAST_PARSED:
        return _LAST_PARSED[key]
    began = time.time()
    try:
        flat = _parse(path, labels, columns)
    except MemoryError:
        raise ConfigError(f"{path.name}: is larger than the memory of this machine") from None
    except ConfigError:
        raise
    # Hydra is not to be blamed for what a library says of odd bytes.
    except ValueError as error:
        raise ConfigError(f"{path.name}: cannot be read ({reason(error)})") from None
    checks.refuse_odd_content(path.name, flat)
    flat = replace(flat, notes=checks.notes(flat))
    changed = max(file.stat().st_mtime for file in files)
    if [_signature(file) for file in files] != signatures:
        raise ConfigError(f"data.path={path}: was changed while it was read; try again")
    is_settled = began - changed > _TRUSTED_AFTER_SECONDS
    stored = keep(flat, key if is_settled else None)
    if stored.folder is None:
        # Without a cache the jobs of a sweep share what this process has parsed.
        _LAST_PARSED.clear()
        _LAST_PARSED[key] = stored
    return stored


def keep(flat: FlatSequences, key: str | None = None) -> Stored:
    """Keep sequences in the cache, in canonical order.

    Args:
        flat: the sequences.
        key: of the file that they were read from; None if it is not to be recognised.
    """
    flat, keys, digest = content.in_canonical_order(flat)
    root = folder_of_cache()
    if root is None:
        return Stored(flat, keys, digest, None)
    folder = root / "contents" / digest
    try:
        if _read_contents(folder) is None:
            _write(folder, _arrays_of(flat, keys))
        described = _names_of(flat) | {"content": digest, "notes": flat.notes}
        # The ids of whoever brought these sequences last are found by their content too.
        for name in (digest, key):
            if name is not None:
                _write(root / "files" / name, {"ids": flat.ids}, described)
    except OSError:
        # A full disk, or one that may not be written to: every process parses the file.
        return Stored(flat, keys, digest, None)
    mapped = _read_contents(folder)
    if mapped is None:
        return Stored(flat, keys, digest, None)
    return Stored(replace(flat, values=mapped["values"]), mapped["keys"], digest, folder)


def find_content(digest: str) -> Stored | None:
    """Return the sequences with this hash, as they were brought last, if the cache has them."""
    root = folder_of_cache()
    return None if root is None else _from_cache(root, digest)


def folder_of_cache() -> Path | None:
    """Return the folder of the cache, which is made if necessary; None if it cannot be."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(base).expanduser() / "grulab" / f"v{_VERSION}"
        if not folder.is_absolute():
            # As the specification of XDG_CACHE_HOME says.
            return None
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def refuse_no_file(path: Path, labels: Path | None = None, key: str = "data.path=") -> None:
    """Check that a file of sequences is there, and of a known form by its name.

    Args:
        path: of the file.
        labels: of a table of labels, or None.
        key: how the file is named, for the messages.

    Raises:
        ConfigError: if one is not there, or no regular file, or not of a known form.
    """
    for name, file in ((key, path), ("data.labels=", labels)):
        if file is None:
            continue
        if not os.path.lexists(file):
            pair = file.with_name(f"{file.stem}_TRAIN{file.suffix}")
            hint = f"; name {pair.name}, which brings its pair" if pair.is_file() else ""
            raise ConfigError(f"{name}{file}: no such file{hint}")
        if file.is_dir():
            raise ConfigError(f"{name}{file}: is a folder; name a file in it")
        if not file.is_file():
            raise ConfigError(f"{name}{file}: is not a regular file")
        if not os.access(file, os.R_OK):
            raise ConfigError(f"{name}{file}: may not be read by this user")
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".npz", ".ts"):
        raise ConfigError(f"{key}{path}: is none of {', '.join((*SUFFIXES, '.npz', '.ts'))} by its name")
    if labels is not None and suffix not in SUFFIXES:
        raise ConfigError(f"data.labels={labels}: has no effect with a {suffix} file, which holds its labels")
    if labels is not None and labels.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"data.labels={labels}: is none of {', '.join(SUFFIXES)} by its name")


def _files(path: Path, labels: Path | None) -> list[Path]:
    """Return the files that a data set consists of.

    Raises:
        ConfigError: if one is not there, or no regular file, or not of a known form.
    """
    refuse_no_file(path, labels)
    files = [file for file, _ in ts.files_of(path)] if path.suffix.lower() == ".ts" else [path]
    return files if labels is None else [*files, labels]


def _parse(path: Path, labels: Path | None, columns: Columns) -> FlatSequences:
    if path.suffix.lower() == ".npz":
        return npz.read_npz(path, path.name)
    if path.suffix.lower() == ".ts":
        return ts.read_ts(path)
    return read_long_table(path, labels, columns)


def _signature(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError as error:
        raise ConfigError(f"data.path={file}: cannot be read ({error.strerror})") from None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _from_cache(root: Path, key: str) -> Stored | None:
    """Return what the cache has under a key; None if it has nothing, or something that grulab does not write.

    A part of the cache may be removed or spoilt at any time: then the file is parsed again.
    """
    folder = root / "files" / key
    names = _read_names(folder)
    if names is None or not re.fullmatch("[0-9a-f]{32}", digest := names["content"]):
        return None
    found = _read_contents(root / "contents" / digest)
    ids = _load(folder / "ids.npy", is_mapped=True)
    if found is None or ids is None or ids.shape != found["lengths"].shape or ids.dtype.kind != "U":
        return None
    if len(names["feature_names"]) != found["values"].shape[1] or len(names["class_names"]) <= found["classes"].max():
        return None
    return Stored(_flat(found, ids, names), found["keys"], digest, root / "contents" / digest)


def _flat(arrays: dict[str, NDArray[Any]], ids: NDArray[np.str_], names: _Names) -> FlatSequences:
    return FlatSequences(
        arrays["values"],
        arrays["lengths"],
        arrays["classes"],
        names["class_names"],
        ids,
        arrays["splits"],
        arrays.get("groups"),
        names["group_names"],
        names["feature_names"],
        names["first_missing"],
        names["notes"],
        names["has_names"],
    )


def _arrays_of(flat: FlatSequences, keys: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "values": flat.values, "lengths": flat.lengths, "classes": flat.classes, "splits": flat.splits, "keys": keys,
    }  # fmt: skip
    return arrays if flat.groups is None else arrays | {"groups": flat.groups}


def _names_of(flat: FlatSequences) -> dict[str, Any]:
    return {
        "class_names": flat.class_names,
        "group_names": flat.group_names,
        "feature_names": flat.feature_names,
        "first_missing": flat.first_missing,
        "has_names": flat.has_names,
    }


def _read_contents(folder: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a folder; None if one is missing, or they are not as :func:`_write` left them."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in _ARRAYS:
        if name == "groups" and not (folder / "groups.npy").exists():
            continue
        array = _load(folder / f"{name}.npy", is_mapped=name == "values")
        if array is None or array.dtype.str != _KINDS[name] or array.ndim != (2 if name == "values" else 1):
            return None
        arrays[name] = array
    lengths, splits = arrays["lengths"], arrays["splits"]
    if any(len(array) != len(lengths) for name, array in arrays.items() if name != "values") or not len(lengths):
        return None
    if lengths.min() < 1 or lengths.sum() != len(arrays["values"]) or arrays["classes"].min() < 0:
        return None
    if splits.min() < NO_SPLIT or splits.max() >= len(SPLITS):
        return None
    # A map may be read as the array that it is.
    arrays["values"] = np.asarray(arrays["values"])
    return arrays


def _read_names(folder: Path) -> _Names | None:
    try:
        names = _SCHEMA.validate_python(json.loads(read_regular(folder / "names.json", _MAX_NAMES)), strict=True)
    except (OSError, ValueError, RecursionError):
        return None
    texts = [*names["class_names"], *names["group_names"], *names["feature_names"], *names["notes"]]
    return names if all(text == printable(text) for text in texts) else None


def _load(path: Path, is_mapped: bool) -> NDArray[Any] | None:
    """Return the array in a file; None if there is none."""
    try:
        with open_regular(path, sys.maxsize) as file:
            found = np.load(path if is_mapped else file, allow_pickle=False, mmap_mode="r" if is_mapped else None)
    except (OSError, ValueError, EOFError, MemoryError):
        return None
    return found if isinstance(found, np.ndarray) else None


def _write(folder: Path, arrays: dict[str, NDArray[Any]], names: dict[str, Any] | None = None) -> None:
    """Write a folder in one go: a process that is killed leaves none that is half written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        if names is not None:
            (temporary / "names.json").write_text(json.dumps(names), encoding="utf-8")
        if folder.exists():
            # Another process was quicker, or it is spoilt.
            shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)


def remember(
    folder: Path | None, name: str, key: Sequence[Any], make: Callable[[], Any], is_sound: Callable[[Any], bool]
) -> Any:
    """Return a result about sequences, plain values, from the cache if it was made before.

    Args:
        folder: of the cache; None computes it.
        name: what it is, such as ``scaling``.
        key: plain values that it depends on besides the sequences.
        make: () -> the result.
        is_sound: whether what the cache has can be such a result; else it is computed again.
    """
    if folder is None:
        return make()
    file = folder / f"{name}-{_hash(json.dumps([_VERSION, *key]))}.json"
    try:
        found = json.loads(read_regular(file, _MAX_NAMES))
        if is_sound(found):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    result = make()
    with suppress(OSError, ConfigError):
        write_atomically(file, json.dumps(result))
    return result


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
