"""The columns of a long table: which holds what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grulab.config_error import ConfigError
from grulab.sequence_files.flat import quote, shorten

# Columns that a table may lack under their usual names.
_OPTIONAL = {"split": "split", "group": "group"}


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns, as the configuration has them.

    Attributes:
        id: of the sequence that a row belongs to.
        time: by which the rows of a sequence are sorted; None takes them in the order of the file.
        label: the sequence's class.
        split: train, val or test.
        group: sequences of one group stay together.
        features: None takes every column that has no other use.
    """

    id: str
    time: str | None
    label: str
    split: str | None
    group: str | None
    features: tuple[str, ...] | None


@dataclass(frozen=True)
class Roles:
    """The columns of a table that exists: as :class:`Columns`, where None is a column that is not there."""

    id: str
    time: str | None
    label: str | None
    split: str | None
    group: str | None
    features: list[str]

    @property
    def texts(self) -> list[str]:
        """The columns that are read as text."""
        return [name for name in (self.id, self.label, self.split, self.group) if name is not None]


def find_roles(name: str, header: Sequence[str], columns: Columns, has_label: bool, has_features: bool) -> Roles:
    """Return what each column of a table is.

    Args:
        name: of the file, for the messages.
        header: the names of its columns.
        columns: as configured.
        has_label: whether a column of labels is required; False if another table has them.
        has_features: whether the table has features and times; False for a table of labels.

    Raises:
        ConfigError: if a column is missing or there twice.
    """
    refuse_twice(name, header)
    found: dict[str, str | None] = {}
    for role in ("id", "time", "label", "split", "group"):
        column = getattr(columns, role)
        is_needed = role == "id" or (role == "label" and has_label) or (role == "time" and has_features)
        if not has_features and role == "time":
            column = None
        if column is not None and column not in header:
            if is_needed or column != _OPTIONAL.get(role, column):
                raise _missing(name, header, f"data.{role}_column={column}", role)
            column = None
        found[role] = column
    if not has_label and has_features and found["label"] is not None:
        raise ConfigError(
            f"{name}: has a column {found['label']}, and data.labels names a table with the labels too; leave out one"
        )
    used = {column: role for role, column in found.items() if column is not None}
    if len(used) < sum(column is not None for column in found.values()):
        raise ConfigError(f"{name}: two of data.*_column name the same column; each needs its own")
    features: list[str] = []
    if has_features:
        features = [column for column in header if column not in used]
        if columns.features is not None:
            known = set(header)
            for column in columns.features:
                if column not in known:
                    raise _missing(name, header, f"data.features={column}", "features")
                if column in used:
                    raise ConfigError(f"data.features={column}: is the column of data.{used[column]}_column already")
            if len(set(columns.features)) < len(columns.features):
                raise ConfigError(f"data.features=[{','.join(columns.features)}]: names a column twice")
            features = list(columns.features)
        if not features:
            raise ConfigError(f"{name}: has no features: its columns are {shorten(list(header))}")
    elif left := [column for column in header if column not in used]:
        raise ConfigError(f"{name}: has the column {quote(left[0])}, which no data.*_column names; leave it out")
    return Roles(str(found["id"]), found["time"], found["label"], found["split"], found["group"], features)


def refuse_twice(name: str, header: Sequence[str]) -> None:
    """Check that every column has a name of its own.

    Raises:
        ConfigError: naming one that has not.
    """
    if twice := [column for column, count in Counter(header).items() if count > 1]:
        raise ConfigError(f"{name}: the column {quote(twice[0])} is there twice; give each a name of its own")


def hint_on_separator(header: Sequence[str]) -> str:
    """Return the end of a message about columns that a table lacks, if its only one looks like several."""
    is_several = len(header) == 1 and any(mark in header[0] for mark in ";|\t,")
    return "; a .csv is separated by commas, a .tsv by tabs" if is_several else ""


def _missing(name: str, header: Sequence[str], key: str, role: str) -> ConfigError:
    hint = hint_on_separator(header)
    if not hint and role == "time":
        hint = "; data.time_column=null takes the rows in the order of the file"
    elif not hint and role == "label":
        hint = "; labels of another table: data.labels=FILE"
    return ConfigError(f"{key}: {name} has no such column; it has {shorten(list(header))}{hint}")
