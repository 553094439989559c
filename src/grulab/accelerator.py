"""Whether this machine has what the configuration asks for."""

import torch

from grulab.config import Config, ConfigError


def find_accelerator(config: Config) -> str:
    """Return "cpu", "cuda" or "mps" for the accelerator that is asked for.

    Raises:
        ConfigError: if this machine does not have it.
    """
    wanted = {"gpu": "cuda"}.get(config.trainer.accelerator, config.trainer.accelerator)
    if wanted == "auto":
        # Not MPS, although Lightning would take it: see Config.notes().
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("trainer.accelerator=mps: this machine has none; use trainer.accelerator=cpu")
    if wanted == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise ConfigError(
                f"trainer.accelerator={config.trainer.accelerator}: this machine has no CUDA device; "
                "use trainer.accelerator=cpu"
            )
        index = config.trainer.devices[0] if isinstance(config.trainer.devices, list) else 0
        if index >= count:
            raise ConfigError(
                f"trainer.devices=[{index}]: this machine has {count} CUDA device(s), counted from 0; "
                f"choose from 0 to {count - 1}"
            )
    return wanted
