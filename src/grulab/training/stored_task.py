"""What a checkpoint tells of the task of its run: enough to use the model without the run's data."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from grulab.config.schema import Config
from grulab.config.validation_messages import dotted
from grulab.field_types import SPLITS, Split
from grulab.sequence_files.columns import Columns
from grulab.sequence_files.preprocessing import End, Preprocessing, from_dict
from grulab.system.printable import printable

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=1000)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_AtLeastOne = Annotated[int, Field(ge=1, le=10**9)]


class _Preprocessing(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    fill: list[_Finite] | None
    indicators: list[_Count]
    every: _AtLeastOne
    max_steps: _AtLeastOne | None
    cut: End
    center: list[_Finite]
    spread: list[_Positive]


class _Columns(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    id: _Text
    time: _Text | None
    label: _Text
    split: _Text | None
    group: _Text | None


class _Metadata(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    class_names: Annotated[list[_Text], Field(min_length=2)]
    features: Annotated[list[_Text], Field(min_length=1)]
    preprocessing: _Preprocessing
    columns: _Columns
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    class_counts: dict[Split, list[_Count]]


_SCHEMA: TypeAdapter[_Metadata] = TypeAdapter(_Metadata)


class OddMetadataError(ValueError):
    """The entries of a checkpoint on its task are missing, or not as a run writes them."""


class StoredTask:
    """The task of a checkpoint: the sizes of its model, and how sequences of a file become its input.

    Args:
        metadata: the entries of the checkpoint; see :meth:`grulab.tasks.base.Task.metadata`.

    Raises:
        OddMetadataError: if they are not as a run with sequences of a file writes them.
    """

    def __init__(self, metadata: Any) -> None:
        try:
            _SCHEMA.validate_python(metadata)
        except ValidationError as error:
            mistake = error.errors()[0]
            raise OddMetadataError(f"task.{dotted(mistake['loc'])}: {mistake['msg']}") from None
        self.class_names: list[str] = metadata["class_names"]
        self.features: list[str] = metadata["features"]
        self.preprocessing: Preprocessing = from_dict(metadata["preprocessing"])
        self.content: str = metadata["content"]
        self._counts: dict[str, list[int]] = metadata["class_counts"]
        columns = metadata["columns"]
        self.columns = Columns(
            columns["id"], columns["time"], columns["label"], columns["split"], columns["group"], tuple(self.features)
        )
        self._refuse_odd()
        self.num_features, self.num_classes = self.preprocessing.num_features, len(self.class_names)

    def _refuse_odd(self) -> None:
        """Check what the entries say of each other.

        Raises:
            OddMetadataError: naming the entry.
        """
        steps, count = self.preprocessing, len(self.features)
        numbers = [steps.center, steps.spread, *([] if steps.fill is None else [steps.fill])]
        if any(len(values) != count for values in numbers):
            raise OddMetadataError(f"task.preprocessing: is not of its {count} features")
        if any(column >= count for column in steps.indicators) or (steps.indicators and steps.fill is None):
            raise OddMetadataError("task.preprocessing.indicators: are not of its features with gaps")
        for key, names in (("class_names", self.class_names), ("features", self.features)):
            if len(set(names)) < len(names) or any(printable(name) != name for name in names):
                raise OddMetadataError(f"task.{key}: holds a name twice, or one that cannot be shown")
        if any(len(self._counts.get(split, [])) != len(self.class_names) for split in SPLITS):
            raise OddMetadataError("task.class_counts: are not of its classes")
        if min(self._counts["train"]) < 1:
            raise OddMetadataError("task.class_counts: train has no sequence of a class")

    def class_counts(self, split: Split) -> list[int]:
        """Return the number of sequences of each class in a split of the run."""
        return self._counts[split]


def refuse_other_task(config: Config, task: StoredTask) -> None:
    """Check that a checkpoint's task is the one of its configuration.

    Raises:
        OddMetadataError: if it is not.
    """
    if getattr(config.data, "content", None) != task.content:
        raise OddMetadataError("task.content: is not that of its configuration")
    for key in ("every", "max_steps", "cut"):
        if getattr(config.data, key) != getattr(task.preprocessing, key):
            raise OddMetadataError(f"task.preprocessing.{key}: is not that of its configuration")
    for key in ("id", "time", "label", "split", "group"):
        if getattr(config.data, f"{key}_column") != getattr(task.columns, key):
            raise OddMetadataError(f"task.columns.{key}: is not that of its configuration")
