"""Assign sequences to train, val and test where the file does not."""

import numpy as np
from numpy.typing import NDArray

from grulab.config_error import ConfigError
from grulab.field_types import SPLITS
from grulab.sequence_files.flat import NO_SPLIT, FlatSequences, quote, shorten

_TRAIN = SPLITS.index("train")


def with_splits(
    name: str, flat: FlatSequences, keys: NDArray[np.uint64], fractions: dict[str, float]
) -> tuple[NDArray[np.int8], list[str]]:
    """Return the split of every sequence: that of the file, or one that is made.

    If the file has no split at all, the three are made. If it has some, the missing val or test is taken from its
    train. A class has its share in every split, and a group is in one split.

    Args:
        name: of the file, for the messages.
        flat: the sequences.
        keys: (sequences,) random numbers that do not depend on the file's order: the smallest of a class come first.
        fractions: the share of ``val`` and of ``test`` among all sequences that are divided.

    Returns:
        (sequences,) int8, positions in SPLITS; and what is to be noted.

    Raises:
        ConfigError: if a class is too small to divide, some sequences have a split and others have none, a group is
            in two splits, or val or test has a class that train lacks.
    """
    splits = flat.splits.copy()
    given = {SPLITS[code] for code in np.unique(splits[splits != NO_SPLIT]).tolist()}
    notes: list[str] = []
    if given and (splits == NO_SPLIT).any():
        sequence = int(np.argmax(splits == NO_SPLIT))
        raise ConfigError(
            f"{name}: the sequence with id {quote(flat.ids[sequence])} has no split, and others have one"
        )
    missing = [split for split in SPLITS if split not in given]
    if given and "train" in missing:
        raise ConfigError(
            f"{name}: its splits are {', '.join(sorted(given))}; without train there is nothing to learn"
        )
    if given and flat.groups is not None:
        _refuse_divided_groups(name, flat, splits)
    if missing:
        if given:
            notes.append(
                f"{name} has no {' and no '.join(missing)}: made of its train, as data.{missing[0]}_fraction says"
            )
        divided = np.flatnonzero(splits == (_TRAIN if given else NO_SPLIT))
        shares: dict[str, float] = {split: fractions[split] for split in missing if split != "train"}
        if flat.groups is None:
            splits[divided] = _by_class(name, flat, divided, keys, shares)
        else:
            splits[divided] = _by_group(name, flat, divided, keys, shares)
    _refuse_lacking_classes(name, flat, splits)
    return splits, notes


def _by_class(
    name: str, flat: FlatSequences, divided: NDArray[np.int64], keys: NDArray[np.uint64], shares: dict[str, float]
) -> NDArray[np.int8]:
    """Divide each class: its first sequences in the order of their keys to test, the next to val, the rest to train.

    Raises:
        ConfigError: if a class has too few sequences.
    """
    chosen = np.full(len(flat.classes), _TRAIN, np.int8)
    classes = flat.classes[divided]
    for code, class_name in enumerate(flat.class_names):
        members = divided[classes == code]
        if not len(members):
            continue
        if len(members) <= len(shares):
            raise ConfigError(
                f"{name}: the label {quote(class_name)} has {len(members)} sequences, too few for {len(shares) + 1} "
                "splits; leave it out, or name the splits in the file"
            )
        members = members[np.argsort(keys[members], kind="stable")]
        sizes = {split: max(1, round(share * len(members))) for split, share in shares.items()}
        while sum(sizes.values()) >= len(members):
            sizes[max(sizes, key=sizes.__getitem__)] -= 1
        start = 0
        for split in reversed(SPLITS[1:]):
            if split in sizes:
                chosen[members[start : start + sizes[split]]] = SPLITS.index(split)
                start += sizes[split]
    return chosen[divided]


def _by_group(
    name: str, flat: FlatSequences, divided: NDArray[np.int64], keys: NDArray[np.uint64], shares: dict[str, float]
) -> NDArray[np.int8]:
    """Divide whole groups, the largest first, each to the split that comes closest to its share of each class."""
    assert flat.groups is not None
    groups, inverse = np.unique(flat.groups[divided], return_inverse=True)
    if len(groups) <= len(shares):
        raise ConfigError(
            f"{name}: has {len(groups)} groups, too few for {len(shares) + 1} splits; leave the column out"
        )
    counts = np.zeros((len(groups), len(flat.class_names)))
    np.add.at(counts, (inverse, flat.classes[divided]), 1)
    ranks = np.zeros(len(groups), np.uint64)
    np.add.at(ranks, inverse, keys[divided])
    names = ["train", *shares]
    wanted = np.array([1 - sum(shares.values()), *shares.values()])[:, None] * counts.sum(axis=0)
    have = np.zeros_like(wanted)
    chosen = np.zeros(len(groups), np.int64)
    for group in np.lexsort((ranks, -counts.sum(axis=1))).tolist():
        # The split that lacks most of this group's classes, as a share of what it should have.
        lacking = ((wanted - have) / np.maximum(wanted, 1e-9) * counts[group]).sum(axis=1)
        chosen[group] = int(np.argmax(lacking))
        have[chosen[group]] += counts[group]
    for place, split in enumerate(names):
        if not (chosen == place).any():
            raise ConfigError(
                f"{name}: no group is left for {split}: the groups are too large; raise data.val_fraction or "
                "data.test_fraction, or name the splits in the file"
            )
    codes = np.array([SPLITS.index(split) for split in names], np.int8)
    divided_splits: NDArray[np.int8] = codes[chosen[inverse]]
    return divided_splits


def _refuse_divided_groups(name: str, flat: FlatSequences, splits: NDArray[np.int8]) -> None:
    assert flat.groups is not None
    pairs = np.unique(np.stack([flat.groups, splits.astype(np.int64)], axis=1), axis=0)
    twice = np.flatnonzero(np.diff(pairs[:, 0]) == 0)
    if len(twice):
        group, one = pairs[twice[0]].tolist()
        other = int(pairs[twice[0] + 1, 1])
        raise ConfigError(
            f"{name}: the group {quote(flat.group_names[group])} is in {SPLITS[one]} and in {SPLITS[other]}; "
            "a group stays together"
        )


def _refuse_lacking_classes(name: str, flat: FlatSequences, splits: NDArray[np.int8]) -> None:
    known = set(flat.classes[splits == _TRAIN].tolist())
    for split in SPLITS[1:]:
        lacking = sorted(set(flat.classes[splits == SPLITS.index(split)].tolist()) - known)
        if lacking:
            names = shorten([flat.class_names[code] for code in lacking])
            raise ConfigError(
                f"{name}: {split} has the label {names}, and train has no sequence of it: nothing can be learnt of it"
            )
    if len(known) < 2:
        raise ConfigError(f"{name}: train has one label only; two classes are needed")


def notes_on_copies(flat: FlatSequences, splits: NDArray[np.int8], keys: NDArray[np.uint64]) -> list[str]:
    """Return a line if the same sequence is in two splits."""
    order = np.lexsort((splits, keys))
    same = (np.diff(keys[order].astype(np.int64)) == 0) & (np.diff(splits[order]) != 0)
    if not same.any():
        return []
    place = int(np.argmax(same))
    one, other = order[place], order[place + 1]
    return [
        f"{int(same.sum()):,} sequences are the same in two splits, such as id {quote(flat.ids[one])} in "
        f"{SPLITS[splits[one]]} and id {quote(flat.ids[other])} in {SPLITS[splits[other]]}: the test is easier than "
        "it should be"
    ]
