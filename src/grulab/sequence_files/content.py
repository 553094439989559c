"""The identity of sequences: a hash of what they hold, whatever the form and the order of the file."""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from grulab.field_types import SPLITS
from grulab.sequence_files.flat import NO_SPLIT, FlatSequences, starts_of

_VERSION = "grulab sequences 1"
_DIGEST_BYTES = 16


def in_canonical_order(flat: FlatSequences) -> tuple[FlatSequences, NDArray[np.uint64], str]:
    """Sort sequences by a digest of their content, so that the same ones give the same arrays from any file.

    A sequence's content is its values, label, split and group. Its id, its times and the names of the features are
    not part of it: forms of files differ in having them.

    Returns:
        The sequences; 64 bits for the values of each: (sequences,) uint64; and the hash of
        all: 32 hexadecimal digits.
    """
    digests, keys = _digests(flat)
    # Equal sequences are in the order of their ids.
    order = np.lexsort((flat.ids, digests))
    total = hashlib.sha256(f"{_VERSION}, {flat.values.shape[1]} features".encode())
    total.update(digests[order].tobytes())
    return _reordered(flat, order), keys[order], total.hexdigest()[:32]


def _digests(flat: FlatSequences) -> tuple[NDArray[np.bytes_], NDArray[np.uint64]]:
    values = np.ascontiguousarray(flat.values, dtype="<f8")
    # There are many bit patterns of NaN, and two of zero.
    heads = _heads(flat)
    digests, keys = bytearray(), bytearray()
    starts = starts_of(flat.lengths).tolist()
    for start, length, (head, split) in zip(starts, flat.lengths.tolist(), heads, strict=True):
        part = values[start : start + length] + 0.0
        part[np.isnan(part)] = np.nan
        # The key is of the values alone: copies have the same, whatever their label and group.
        keys += hashlib.blake2b(part.tobytes(), digest_size=8).digest()
        digest = hashlib.blake2b(head, digest_size=_DIGEST_BYTES)
        digest.update(part.tobytes())
        digest.update(split)
        # Hexadecimal, because NumPy takes a zero byte at the end of bytes for padding.
        digests += digest.hexdigest().encode()
    return np.frombuffer(bytes(digests), f"S{2 * _DIGEST_BYTES}"), np.frombuffer(bytes(keys), "<u8")


def _heads(flat: FlatSequences) -> list[tuple[bytes, bytes]]:
    labels = [f"{len(name.encode())}:{name}".encode() for name in flat.class_names]
    groups = [f"{len(name.encode())}:{name}".encode() for name in flat.group_names]
    splits = {NO_SPLIT: b""} | {code: name.encode() for code, name in enumerate(SPLITS)}
    group_of = [b"" for _ in flat.classes] if flat.groups is None else [groups[code] for code in flat.groups.tolist()]
    return [
        (labels[code] + b"|" + group, splits[split])
        for code, group, split in zip(flat.classes.tolist(), group_of, flat.splits.tolist(), strict=True)
    ]


def _reordered(flat: FlatSequences, order: NDArray[np.int64]) -> FlatSequences:
    starts, values = starts_of(flat.lengths), np.empty_like(flat.values)
    place = 0
    for start, length in zip(starts[order].tolist(), flat.lengths[order].tolist(), strict=True):
        values[place : place + length] = flat.values[start : start + length]
        place += length
    return replace(
        flat,
        values=values,
        lengths=flat.lengths[order],
        classes=flat.classes[order],
        ids=flat.ids[order],
        splits=flat.splits[order],
        groups=None if flat.groups is None else flat.groups[order],
    )
