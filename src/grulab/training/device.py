"""Find the accelerator of a run (CPU, CUDA or MPS), and refuse one that this machine does not have."""

import os

import torch

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.kernels.backend import refuse_missing_kernels


def find_accelerator(config: Config) -> str:
    """Return the accelerator that ``trainer.accelerator`` selects: "cpu", "cuda" or "mps".

    Raises:
        ConfigError: if this machine lacks the accelerator, the device in ``trainer.devices`` or the fused kernels, or
            if the accelerator does not support ``trainer.precision``.
    """
    refuse_missing_kernels(config)
    # Without this, torch.cuda.is_available() makes CUDA unusable in processes that are forked later.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    trainer = config.trainer
    found = {"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator)
    if found == "auto":
        # "auto" never selects MPS, although Lightning would: see grulab.config.notes.
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
