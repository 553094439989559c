"""The schema of a run's configuration: types, ranges and cross-field rules. The values are in conf/.

No torch here: a mistake is reported before anything slow is imported.
"""

import dataclasses
import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Count, Flag, Number, Seed
from grulab.tasks.base import DataConfig

MAX_HIDDEN_SIZE = 2**16

Metric = Literal["val/accuracy", "val/loss"]
Backend = Literal["auto", "fused", "torch"]
Algorithm = Literal["adam", "adamw"]
Schedule = Literal["constant", "cosine"]
Loop = Literal["fast", "lightning"]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The recurrent part: the three axes of the sweep, dropout between its layers, and its implementation."""

    hidden_size: Annotated[Count, Field(le=MAX_HIDDEN_SIZE)]
    num_layers: Annotated[Count, Field(le=1000)]
    bidirectional: Flag
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    backend: Backend
    parameter_budget: Count | None


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """The update of the weights."""

    algorithm: Algorithm
    # Beyond that, a 32-bit float cannot hold Adam's first step.
    lr: Annotated[Number, Field(gt=0, le=3e37)]
    weight_decay: Annotated[Number, Field(ge=0)]
    schedule: Schedule


def _one_device(value: Any) -> Any:
    if type(value) is int and value == 1:
        return value
    if isinstance(value, list) and len(value) == 1 and type(value[0]) is int and value[0] >= 0:
        return value
    raise ValueError(f"devices={value}: a run trains on one device; write 1, or [2] to name which")


@dataclass(frozen=True, config=STRICT)
class TrainerConfig:
    """How long, where and in which precision."""

    max_epochs: Count
    early_stopping_patience: Count | None
    accelerator: Literal["auto", "cpu", "cuda", "gpu", "mps"]
    devices: Annotated[int | list[int], BeforeValidator(_one_device)]
    threads: Annotated[Count, Field(le=1024)]
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
    gradient_clip_val: Annotated[Number, Field(gt=0)] | None
    deterministic: Flag
    loop: Loop


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """Which epoch is the best one, and how often the newest state is kept."""

    monitor: Metric
    every_n_epochs: Count
    every_n_steps: Count | None


@dataclass(frozen=True, config=STRICT)
class Config:
    """The configuration of one run."""

    # A name becomes a folder's: no separators, nothing a shell or an override would read differently.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    seed: Seed
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration in plain types, as it goes into checkpoints and JSON."""
        return dataclasses.asdict(self)

    def hash(self) -> str:
        """Return 16 hexadecimal digits that name this configuration."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_higher_better(metric: str) -> bool:
    """Return whether a metric is better when it is higher: an accuracy is, a loss is not."""
    return not metric.endswith("loss")
