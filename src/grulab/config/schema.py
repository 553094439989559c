"""The schema of a run's configuration: types, ranges and cross-field rules. The values are in conf/.

This module does not import torch, so that mistakes are reported before the slow imports.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Count, Flag, Number, Seed
from grulab.tasks.base import DataConfig

MAX_HIDDEN_SIZE = 2**16

_SCALARS = {int, float, str, bool, type(None)}

Metric = Literal["val/accuracy", "val/loss", "val/balanced_accuracy", "val/macro_f1"]
ClassWeights = Literal["none", "balanced"]
Backend = Literal["auto", "fused", "torch"]
SequenceLayout = Literal["auto", "packed", "padded"]
Algorithm = Literal["adam", "adamw"]
Schedule = Literal["constant", "cosine", "linear"]
UpdateBias = Literal["default", "chrono"]
Loop = Literal["fast", "lightning"]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The GRU: hidden size or parameter budget, depth, direction, dropout between layers, and implementation."""

    hidden_size: Annotated[Count, Field(le=MAX_HIDDEN_SIZE)]
    num_layers: Annotated[Count, Field(le=1000)]
    bidirectional: Flag
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    backend: Backend
    sequences: SequenceLayout
    parameter_budget: Count | None
    class_weights: ClassWeights
    update_bias: UpdateBias
    chrono_length: Count | None


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    algorithm: Algorithm
    # Above this bound, Adam's first step overflows a 32-bit float.
    lr: Annotated[Number, Field(gt=0, le=3e37)]
    weight_decay: Annotated[Number, Field(ge=0)]
    schedule: Schedule
    horizon: Count | None


def _one_device(value: Any) -> Any:
    if type(value) is int and value == 1:
        return value
    if isinstance(value, list) and len(value) == 1 and type(value[0]) is int and value[0] >= 0:
        return value
    raise ValueError(
        f"devices={value}: a run trains on one device, since exchanging gradients would cost as much as a step, and "
        "change the bits; write 1, or [2] to name which"
    )


@dataclass(frozen=True, config=STRICT)
class TrainerConfig:
    """The duration, the device and the precision of the training."""

    max_epochs: Count
    early_stopping_patience: Count | None
    early_stopping_threshold: Annotated[Number, Field(ge=0)] | None
    accelerator: Literal["auto", "cpu", "cuda", "gpu", "mps"]
    devices: Annotated[int | list[int], BeforeValidator(_one_device)]
    threads: Annotated[Count, Field(le=1024)]
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
    tf32: Flag
    gradient_clip_val: Annotated[Number, Field(gt=0)] | None
    deterministic: Flag
    loop: Loop
    cuda_graphs: Flag


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """The metric that selects the best epoch, and how often the newest state is saved."""

    monitor: Metric
    every_n_epochs: Count
    every_n_steps: Count | None


@dataclass(frozen=True, config=STRICT)
class Config:
    """The configuration of one run."""

    # The name becomes a folder's name: no separators, and no characters special to a shell or an override.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    seed: Seed
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested plain types, as stored in checkpoints and JSON."""
        return _plain(self)

    def hash(self) -> str:
        """Return 16 hexadecimal digits that name this configuration, wherever its data are."""
        values = self.to_dict()
        values["data"] = {key: value for key, value in values["data"].items() if key not in self.data.PLACES}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(section: Any) -> dict[str, Any]:
    """Return what dataclasses.asdict does, in a tenth of the time: a sweep may have ten thousand configurations."""
    values: dict[str, Any] = {name: getattr(section, name) for name in _names(cast(Hashable, type(section)))}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = copy.deepcopy(value)
        elif type(value) not in _SCALARS and dataclasses.is_dataclass(value):
            values[name] = _plain(value)
    return values


@cache
def _names(section: Hashable) -> list[str]:
    return [field.name for field in dataclasses.fields(cast(Any, section))]


def is_higher_better(metric: str) -> bool:
    """Return whether higher values of the metric are better: true for an accuracy or F1, false for a loss."""
    return not metric.endswith("loss")
