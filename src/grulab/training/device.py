"""The device that a run computes on: CPU, CUDA or MPS, refused where this machine does not have it."""

import os

import torch

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.kernels.backend import refuse_missing_kernels


def find_accelerator(config: Config) -> str:
    """Return "cpu", "cuda" or "mps" for the accelerator that is asked for.

    Raises:
        ConfigError: if this machine lacks it, or that device of it, or the kernels, or it cannot compute in that
            precision.
    """
    refuse_missing_kernels(config)
    # Otherwise the question alone makes CUDA unusable in processes that are forked later.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    trainer = config.trainer
    found = {"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator)
    if found == "auto":
        # Not MPS, although Lightning would take it: see grulab.config.notes.
        found = "cuda" if torch.cuda.is_available() else "cpu"
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(found, 1)
    if count == 0:
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator}: this machine has no {found} device; "
            "use trainer.accelerator=cpu"
        )
    if isinstance(trainer.devices, list) and trainer.devices[0] >= count:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: this machine has {count} {found} device{'s' * (count > 1)}, "
            f"counted from 0; choose one of those"
        )
    if trainer.precision == "16-mixed" and found == "cpu":
        raise ConfigError("trainer.precision=16-mixed: the cpu has no 16-bit floats of that kind; use bf16-mixed")
    if trainer.precision == "64-true" and found == "mps":
        raise ConfigError("trainer.precision=64-true: mps has no 64-bit floats; use 32-true")
    return found
