"""Classify the sequences of a file: a person's own data."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from grulab.config_error import ConfigError
from grulab.field_types import SPLITS, STRICT, Count, Flag, Number, Split
from grulab.sequence_files import cache, preprocessing
from grulab.sequence_files.cache import Stored
from grulab.sequence_files.checks import refuse_odd_classes
from grulab.sequence_files.columns import Columns
from grulab.sequence_files.flat import FlatSequences, shorten, starts_of
from grulab.sequence_files.splits import notes_on_copies, with_splits
from grulab.tasks import counter_rng
from grulab.tasks.base import DataConfig, Sequences, Task
from grulab.tasks.registry import register_task

Name = Annotated[str, Field(min_length=1, max_length=200)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]

# A scaled value beyond this is noted: the feature has an outlier.
_FAR = 100.0
# In interquartile ranges.
_FAR_FROM_THE_MIDDLE = 1000.0
_LARGEST = float(np.finfo(np.float32).max)
_CHUNK = 2**20


class ValueMissingError(ConfigError):
    """A feature has a gap, and ``data.missing=refuse``."""


@dataclass(frozen=True, config=STRICT)
class FilesConfig(DataConfig):
    """The keys of :class:`Files`."""

    PLACES = ("path", "labels")

    task: Literal["files"]
    path: str | None
    labels: str | None
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    id_column: Name
    time_column: Name | None
    label_column: Name
    split_column: Name | None
    group_column: Name | None
    features: Annotated[list[Name], Field(min_length=1)] | None
    val_fraction: Fraction
    test_fraction: Fraction
    scale: preprocessing.Scale
    every: Count
    max_steps: Count | None
    cut: preprocessing.End
    missing: Literal["refuse", "fill"]
    missing_indicator: Flag

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction}: with data.test_fraction={self.test_fraction} nothing is left to "
                "train with; lower one of them"
            )
        if self.missing_indicator and self.missing == "refuse":
            raise ValueError("missing_indicator=true: needs data.missing=fill; without it nothing may be missing")
        return self

    def located(self) -> Self:
        """Return the configuration with the absolute path of its file and the hash of what it holds.

        Raises:
            ConfigError: naming what is odd in the file.
        """
        if not self.path:
            if self.content is None:
                raise _no_path()
            return self
        stored = _read(self)
        if self.content not in (None, stored.content):
            raise _another_content(self, stored)
        labels = None if self.labels is None else str(_absolute(self.labels))
        return replace(self, path=str(_absolute(self.path)), labels=labels, content=stored.content)


@register_task(FilesConfig)
class Files(Task):
    """The sequences of a file, with the splits, the scaling and the classes that it has or that are made of it."""

    config: FilesConfig
    has_ids = True

    def __init__(self, config: FilesConfig) -> None:
        self.config = config
        self._stored = _find(config)
        flat = self._stored.flat
        self.cache_folder = self._stored.folder
        self.name = "the arrays" if config.path is None else Path(config.path).name
        refuse_odd_classes(self.name, flat)
        if flat.first_missing is not None and config.missing == "refuse":
            raise ValueMissingError(f"{flat.first_missing}: a value is missing; data.missing=fill fills it in")
        # The smallest of a class in this order go to the splits that are made.
        order = counter_rng.bits(config.seed, "splits", "order", self._stored.keys.astype(np.int64), 1)[:, 0]
        fractions = {"val": config.val_fraction, "test": config.test_fraction}
        splits, notes = with_splits(self.name, flat, order, fractions)
        self._members = {split: np.flatnonzero(splits == code) for code, split in enumerate(SPLITS)}
        self._starts = starts_of(flat.lengths)
        self.preprocessing = self._fit()
        self._lengths = self.preprocessing.lengths(flat.lengths)
        self.feature_names = [
            *flat.feature_names,
            *(f"{flat.feature_names[column]} missing" for column in self.preprocessing.indicators),
        ]
        self.num_features, self.num_classes = len(self.feature_names), len(flat.class_names)
        self.length_range = (int(self._lengths.min()), int(self._lengths.max()))
        counts = self.class_counts("train")
        test = self.class_counts("test")
        self.chance = test[int(np.argmax(counts))] / sum(test)
        self.notes = [*flat.notes, *notes, *self._remembered_notes(splits)]
        if config.every > 1 and self.length_range[1] == 1:
            self.notes.append(f"data.every={config.every} leaves one step of every sequence: nothing is left of time")

    @property
    def flat(self) -> FlatSequences:
        """All sequences as the file has them, in canonical order."""
        return self._stored.flat

    @property
    def content(self) -> str:
        """The hash of what the file holds."""
        return self._stored.content

    @property
    def class_names(self) -> list[str]:
        """The labels, in natural order."""
        return self._stored.flat.class_names

    def size(self, split: Split) -> int:
        """Return the number of sequences in a split."""
        return len(self._members[split])

    def lengths(self, seed: int, split: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of the sequences with these indices; see :meth:`Task.lengths`."""
        return self._lengths[self._members[split][indices]]  # type: ignore[index]

    def generate(self, seed: int, split: Split, indices: NDArray[np.int64]) -> Sequences:
        """Return the sequences with these indices, scaled and padded; see :meth:`Task.generate`."""
        chosen = self._members[split][indices]
        flat, lengths = self._stored.flat, self._lengths[chosen]
        values = self.preprocessing.apply(self._values_of(chosen), flat.lengths[chosen])
        return Sequences(preprocessing.padded(values, lengths), lengths, flat.classes[chosen])

    def ceiling(self) -> None:
        """Return None: nobody knows the best possible accuracy."""
        return

    def ids(self, split: Split) -> list[str]:
        """Return the id of each sequence of a split."""
        return [str(text) for text in self._stored.flat.ids[self._members[split]]]

    def classes(self, split: Split) -> NDArray[np.int64]:
        """Return the class of each sequence of a split."""
        return self._stored.flat.classes[self._members[split]]

    def class_counts(self, split: Split) -> list[int]:
        """Return the number of sequences of each class in a split."""
        counts: list[int] = np.bincount(self.classes(split), minlength=len(self.class_names)).tolist()
        return counts

    def metadata(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold so that it can read another file as this one was read."""
        config, flat = self.config, self._stored.flat
        columns = {role: getattr(config, f"{role}_column") for role in ("id", "time", "label", "split", "group")}
        return super().metadata() | {
            "features": list(flat.feature_names),
            "preprocessing": self.preprocessing.to_dict(),
            "columns": columns,
            "content": self._stored.content,
            "class_counts": {split: self.class_counts(split) for split in SPLITS},
        }

    def _values_of(self, sequences: NDArray[np.int64]) -> NDArray[np.float64]:
        flat = self._stored.flat
        ends = self._starts[sequences] + flat.lengths[sequences]
        parts = [
            flat.values[start:end] for start, end in zip(self._starts[sequences].tolist(), ends.tolist(), strict=True)
        ]
        return np.concatenate(parts) if parts else flat.values[:0]

    def _fit(self) -> preprocessing.Preprocessing:
        config, flat = self.config, self._stored.flat
        key = [config.scale, config.every, config.max_steps, config.cut, config.missing, config.missing_indicator]

        def make() -> dict[str, Any]:
            train = self._members["train"]
            indicators = []
            if config.missing_indicator:
                indicators = [
                    column for column in range(flat.values.shape[1]) if bool(np.isnan(flat.values[:, column]).any())
                ]
            fitted = preprocessing.fit(
                flat.values, flat.lengths, train, config.scale, config.every, config.max_steps, config.cut,
                config.missing == "fill", indicators,
            )  # fmt: skip
            return fitted.to_dict()

        width = flat.values.shape[1]
        return preprocessing.from_dict(
            cache.remember(
                self._stored.folder,
                "scaling",
                [*key, *self._split_key()],
                make,
                lambda found: preprocessing.is_sound(found, width),
            )
        )

    def _split_key(self) -> list[Any]:
        return [self.config.seed, self.config.val_fraction, self.config.test_fraction]

    def _remembered_notes(self, splits: NDArray[np.int8]) -> list[str]:
        flat = self._stored.flat
        lines = notes_on_copies(flat, splits, self._stored.keys)
        constant, far = self._scaled_range()
        names = flat.feature_names
        if constant:
            lines.append(f"{shorten([names[column] for column in constant])}: constant in train, so it tells nothing")
        if far:
            beyond = f"{_FAR:g} when scaled, or {_FAR_FROM_THE_MIDDLE:g} interquartile ranges from the median"
            odd = shorten([names[column] for column in far])
            lines.append(
                f"{odd}: some values are far from the others: beyond {beyond}; "
                "one outlier can spoil a feature; data.scale=robust, or correct them"
            )
        return lines

    def _scaled_range(self) -> tuple[list[int], list[int]]:
        """Return the columns that are constant in train, and those with scaled values that are far from 0."""

        def make() -> list[list[int]]:
            flat = self._stored.flat
            width = flat.values.shape[1]
            in_train = np.zeros(len(flat.lengths), bool)
            in_train[self._members["train"]] = True
            is_train = np.repeat(in_train, flat.lengths)
            lowest, highest = np.full(width, np.inf), np.full(width, -np.inf)
            far = np.zeros(width, bool)
            sample = np.array(flat.values[:: -(-len(flat.values) // _CHUNK)])
            with warnings.catch_warnings():
                # A feature may be missing throughout.
                warnings.simplefilter("ignore", RuntimeWarning)
                low, middle, high = np.nanpercentile(sample, [25, 50, 75], axis=0)
            width_of_middle = np.where(high > low, high - low, np.inf)
            center, spread = np.array(self.preprocessing.center), np.array(self.preprocessing.spread)
            for start in range(0, len(flat.values), _CHUNK):
                block = flat.values[start : start + _CHUNK]
                with np.errstate(over="ignore"):
                    sizes = np.abs((block - center) / spread)
                if (sizes > _LARGEST).any():
                    raise self._beyond(start, sizes)
                far |= (sizes > _FAR).any(axis=0)
                # With an outlier in train the deviation is the outlier's own, and no scaled value is large.
                with np.errstate(over="ignore"):
                    far |= (np.abs(block - middle) > _FAR_FROM_THE_MIDDLE * width_of_middle).any(axis=0)
                known = block[is_train[start : start + _CHUNK]]
                if len(known):
                    lowest = np.fmin(lowest, np.fmin.reduce(known, axis=0))
                    highest = np.fmax(highest, np.fmax.reduce(known, axis=0))
            return [np.flatnonzero(~(lowest < highest)).tolist(), np.flatnonzero(far).tolist()]

        key = [self.preprocessing.to_dict(), *self._split_key()]
        columns = range(len(self.preprocessing.center))

        def is_sound(found: Any) -> bool:
            return (
                isinstance(found, list)
                and [type(part) for part in found] == [list, list]
                and all(column in columns for part in found for column in part)
            )

        constant, far = cache.remember(self._stored.folder, "ranges", key, make, is_sound)
        return constant, far if self.config.scale != "none" else []

    def _beyond(self, start: int, sizes: NDArray[np.float64]) -> ConfigError:
        step, column = (int(place) for place in np.argwhere(sizes > _LARGEST)[0])
        sequence = int(np.searchsorted(self._starts, start + step, side="right")) - 1
        flat = self._stored.flat
        return ConfigError(
            f"{self.name}: id {shorten([str(flat.ids[sequence])])}, column {flat.feature_names[column]}: the value "
            f"{flat.values[start + step, column]:g} is beyond 32 bits when it is scaled (data.scale="
            f"{self.config.scale}); correct it, or leave the sequence out"
        )


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"data.path={path}: there is no such user's home folder") from None


def _read(config: FilesConfig) -> Stored:
    assert config.path is not None
    columns = Columns(
        config.id_column,
        config.time_column,
        config.label_column,
        config.split_column,
        config.group_column,
        None if config.features is None else tuple(config.features),
    )
    return cache.read_file(
        _absolute(config.path), None if config.labels is None else _absolute(config.labels), columns
    )


def _find(config: FilesConfig) -> Stored:
    """Return the sequences of a configuration: from its file, or from the cache if the file is gone.

    Raises:
        ConfigError: if the file holds something else, or there are neither the file nor its sequences.
    """
    if not config.path and config.content is None:
        raise _no_path()
    if config.path is not None and (Path(config.path).exists() or config.content is None):
        stored = _read(config)
        if config.content not in (None, stored.content):
            raise _another_content(config, stored)
        return stored
    assert config.content is not None
    found = cache.find_content(config.content)
    if found is None:
        place = "the arrays are not in the cache any more" if config.path is None else f"{config.path}: no such file"
        raise ConfigError(f"data.path={place}; name where the sequences are: data.path=FILE")
    return found


def _no_path() -> ConfigError:
    return ConfigError("data.path: has no value; name a .csv, .tsv, .parquet, .npz or .ts file")


def _another_content(config: FilesConfig, stored: Stored) -> ConfigError:
    return ConfigError(
        f"data.path={config.path}: holds other sequences than before (content {stored.content[:8]}, not "
        f"{str(config.content)[:8]}); put the file back, or begin anew with grulab train"
    )
