"""The schema of a run's configuration: types, ranges and cross-field rules. The values are in conf/.

No torch here: a mistake is reported before anything slow is imported.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from grulab.config.budget import MAX_HIDDEN_SIZE, count_parameters, largest_hidden_size
from grulab.config.validation_messages import dotted, remedy, shown_value

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

# Strict: "8" is not a number and 1 is not true.
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
# The upper bounds keep a slip of the finger from asking the machine for more than any has.
Count = Annotated[Integer, Field(ge=1, le=10**9)]
# Lightning, NumPy and Python seed their generators with 32 bits.
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Level = Literal["easy", "normal", "moderate", "hard", "nightmare"]
Metric = Literal["val/accuracy", "val/loss"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ConfigError(ValueError):
    """A user's mistake: each line names the key, the value and the remedy."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """What every task's data have in common: how many sequences there are and how they are loaded."""

    seed: Seed
    train_size: Count
    val_size: Count
    test_size: Count
    batch_size: Count
    num_workers: Annotated[Integer, Field(ge=0, le=256)]

    def size(self, split: Split) -> int:
        """Return how many sequences a split has."""
        return {"train": self.train_size, "val": self.val_size, "test": self.test_size}[split]


@dataclass(frozen=True, config=STRICT)
class SinusoidsConfig(DataConfig):
    """See :class:`grulab.tasks.sinusoids.Sinusoids`."""

    task: Literal["sinusoids"]
    min_length: Count
    max_length: Count
    num_features: Count
    frequencies: Annotated[list[Annotated[Number, Field(ge=0, le=0.5)]], Field(min_length=2)]
    # With less, computing the ceiling takes minutes, and it is 1.
    noise: Annotated[Number, Field(ge=0.01, le=1e6)]

    @property
    def shape(self) -> tuple[int, int]:
        """Features of a step, and classes."""
        return self.num_features, len(self.frequencies)

    @model_validator(mode="after")
    def _lengths_are_a_range(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length={self.min_length}: is over data.max_length={self.max_length}; "
                "lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _frequencies_differ(self) -> Self:
        if len(set(self.frequencies)) < len(self.frequencies):
            raise ValueError(
                f"frequencies={self.frequencies}: a frequency stands there twice; each class needs its own"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class TemporalOrderConfig(DataConfig):
    """See :class:`grulab.tasks.temporal_order.TemporalOrder`."""

    task: Literal["temporal_order"]
    variant: Literal["6a", "6b"]
    level: Level

    @property
    def shape(self) -> tuple[int, int]:
        """Features of a step (the symbols), and classes (the orders of two or three)."""
        return 8, 4 if self.variant == "6a" else 8


TASK_CONFIGS: dict[str, type[DataConfig]] = {
    "sinusoids": SinusoidsConfig,
    "temporal_order": TemporalOrderConfig,
}
AnyDataConfig = Annotated[SinusoidsConfig | TemporalOrderConfig, Field(discriminator="task")]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The recurrent part: the three axes of the sweep, dropout between its layers, and what computes it."""

    hidden_size: Annotated[Count, Field(le=MAX_HIDDEN_SIZE)]
    num_layers: Annotated[Count, Field(le=1000)]
    bidirectional: Flag
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    backend: Literal["auto", "fused", "torch"]
    parameter_budget: Count | None


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """How the weights are moved."""

    algorithm: Literal["adam", "adamw"]
    # Beyond that, a 32-bit float cannot hold Adam's first step.
    lr: Annotated[Number, Field(gt=0, le=3e37)]
    weight_decay: Annotated[Number, Field(ge=0)]
    schedule: Literal["constant", "cosine"]


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


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """Which epoch is the best one, and how often the newest state is kept."""

    monitor: Metric
    every_n_epochs: Count
    every_n_steps: Count | None


@dataclass(frozen=True, config=STRICT)
class Config:
    """One run, whole."""

    # A name becomes a folder's: no separators, nothing a shell or an override would read differently.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    seed: Seed
    data: AnyDataConfig
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

    @property
    def parameters(self) -> int:
        """How many weights and biases the model has."""
        num_features, num_classes = self.data.shape
        model = self.model
        return count_parameters(num_features, model.hidden_size, model.num_layers, num_classes, model.bidirectional)

    def notes(self) -> list[str]:
        """Return a line for every option that has no effect in this run, or that the user should know of."""
        lines = []
        if self.model.parameter_budget is not None:
            lines.append(
                f"model.parameter_budget={self.model.parameter_budget} makes model.hidden_size="
                f"{self.model.hidden_size}: {self.parameters:,} parameters"
            )
        if self.model.dropout > 0 and self.model.num_layers == 1:
            lines.append(
                f"model.dropout={self.model.dropout} has no effect with model.num_layers=1: "
                "dropout acts between layers"
            )
        if self.checkpoint.every_n_epochs > self.trainer.max_epochs:
            lines.append(
                f"checkpoint.every_n_epochs={self.checkpoint.every_n_epochs} has no effect with "
                f"trainer.max_epochs={self.trainer.max_epochs}: only the final epoch is kept"
            )
        if self.trainer.accelerator == "mps":
            lines.append(
                "trainer.accelerator=mps: packed GRUs lose gradients there in some versions of torch "
                "(pytorch#102911); compare with trainer.accelerator=cpu before you trust a result"
            )
        return lines


_SCHEMA: TypeAdapter[Config] = TypeAdapter(Config)


def parse(values: Mapping[str, Any]) -> Config:
    """Turn nested plain values into a checked :class:`Config`.

    Raises:
        ConfigError: with one line for each mistake, naming the key, the value and the remedy.
    """
    try:
        return _within_budget(_SCHEMA.validate_python(dict(values)))
    except ValidationError as error:
        lines = [_explain(dict(mistake), values) for mistake in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def parse_stored(values: Mapping[str, Any]) -> Config:
    """Parse what a run's or a sweep's folder holds, also of a version of grulab that had no ``model.backend``."""
    model = values.get("model")
    return parse({**values, "model": {"backend": "torch", **model}} if isinstance(model, Mapping) else values)


def _within_budget(config: Config) -> Config:
    """Return the configuration with the hidden size that its budget of parameters buys, if it has one."""
    model = config.model
    if model.parameter_budget is None:
        return config
    num_features, num_classes = config.data.shape
    size = largest_hidden_size(
        model.parameter_budget, num_features, model.num_layers, num_classes, model.bidirectional
    )
    if size == 0:
        least = count_parameters(num_features, 1, model.num_layers, num_classes, model.bidirectional)
        raise ConfigError(
            f"model.parameter_budget={model.parameter_budget}: with model.num_layers={model.num_layers} and "
            f"model.bidirectional={shown_value(model.bidirectional)} a single unit needs {least}; raise it"
        )
    return dataclasses.replace(config, model=dataclasses.replace(model, hidden_size=size))


def _explain(mistake: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    location = list(mistake["loc"])
    # Under data, pydantic's location has the task's name in second place.
    if len(location) > 1 and location[0] == "data":
        del location[1]
    key, value, kind = dotted(location), mistake["input"], mistake["type"]
    if kind == "union_tag_invalid":
        return f"data.task={mistake['ctx']['tag']}: choose from {', '.join(TASK_CONFIGS)}"
    if kind == "value_error":
        # Our own rules name their key themselves, relative to the section they stand in.
        return f"{location[0]}.{mistake['ctx']['error']}"
    if key in ("experiment", "debug") and isinstance(value, Mapping):
        return f"{key}: has keys of its own; begin the file that you chose for it with # @package _global_"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(f"{key}={shown_value(value)}", valid_keys(values))
    if kind == "missing":
        return f"{key}: has no value; give it one"
    return f"{key}={shown_value(value)}: {remedy(mistake)}"


def unknown_key(override: str, valid: list[str]) -> str:
    """Return the line for a key that does not exist, with the nearest one that does."""
    key = override.split("=", 1)[0]
    alike = [name for name in valid if ("." in name) == ("." in key)]
    near = difflib.get_close_matches(key, alike, n=1, cutoff=0.5)
    if not near:
        # A bare name is often right but for its section: hidden_size for model.hidden_size.
        near = [name for name in valid if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
    owners = [task for task in TASK_CONFIGS if key in valid_keys({"data": {"task": task}})]
    if owners and key not in valid:
        hint = f"only data={owners[0]} has it"
    elif near and near[0] != key:
        hint = f"did you mean {near[0]}?"
    else:
        hint = "grulab train --help lists the keys"
    return f"{override}: no such key; {hint}"


def valid_keys(values: Mapping[str, Any]) -> list[str]:
    """Return every dotted key of the schema that holds a value, for the task that ``values`` names."""
    data = values.get("data")
    task = data.get("task") if isinstance(data, Mapping) else None
    return list(_keys(Config, TASK_CONFIGS.get(str(task), SinusoidsConfig)))


def _keys(section: type, data: type, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(section):
        kind = data if field.name == "data" else field.type
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _keys(kind, data, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
