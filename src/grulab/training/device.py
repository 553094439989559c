"""Find the accelerator of a run (CPU, CUDA or MPS), and refuse one that this machine does not have."""

import os
from collections.abc import Iterator

import torch

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.kernels.backend import layout_on, refuse_missing_kernels
from grulab.tasks.registry import build_task
from grulab.training.device_check import is_right_on_mps


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
        found = "cuda" if torch.cuda.is_available() else "mps" if _suits_mps(config) else "cpu"
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


def _suits_mps(config: Config) -> bool:
    """Return whether ``trainer.accelerator=auto`` takes MPS: some versions of torch compute wrong gradients there.

    The check is of 32 bits over padded sequences, so nothing else is taken there without being asked for.
    """
    is_checked = config.trainer.precision == "32-true" and config.model.backend != "fused"
    return is_checked and layout_on("mps", config.model.sequences, False) == "padded" and is_right_on_mps()


def device_notes(config: Config, accelerator: str, loop: str) -> Iterator[str]:
    """Yield a line for each option that has no effect on this accelerator, or a cost that its name does not tell.

    Args:
        config: of the run.
        accelerator: "cpu", "cuda" or "mps".
        loop: the training loop that runs, "fast" or "lightning".
    """
    precision = config.trainer.precision
    if config.trainer.cuda_graphs and (why := why_no_graphs(config, accelerator, loop)):
        yield f"trainer.cuda_graphs=true has no effect with {why}"
    if accelerator == "mps" and config.model.dropout > 0 and config.model.num_layers > 1:
        yield (
            f"model.dropout={config.model.dropout}: a run that is resumed on mps drops other units than one that was "
            "never interrupted, for checkpoints do not hold the state of its generator"
        )
    if config.trainer.tf32 and (accelerator != "cuda" or precision != "32-true"):
        where = f"trainer.precision={precision}" if accelerator == "cuda" else f"the {accelerator} device"
        yield f"trainer.tf32=true has no effect with {where}: it rounds products of 32-true on cuda"
    if precision != "bf16-mixed":
        return
    if accelerator == "cpu":
        yield (
            "trainer.precision=bf16-mixed: a step on the cpu takes about twice the time of nn.GRU in 32-true, and "
            "more against the fused kernels, even where the processor has 16-bit instructions"
        )
    elif accelerator == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield (
            f"trainer.precision=bf16-mixed: {torch.cuda.get_device_name()} has no such floats and emulates them, "
            "which is slower than 32-true; use 16-mixed"
        )


def has_graphs(config: Config, accelerator: str, loop: str) -> bool:
    """Return whether the steps of a run are CUDA graphs; the arguments are those of :func:`why_no_graphs`."""
    return config.trainer.cuda_graphs and why_no_graphs(config, accelerator, loop) is None


def why_no_graphs(config: Config, accelerator: str, loop: str) -> str | None:
    """Return what keeps the steps of a run from being CUDA graphs; None if nothing does.

    Args:
        config: of the run.
        accelerator: "cpu", "cuda" or "mps".
        loop: the training loop that runs, "fast" or "lightning".
    """
    trainer = config.trainer
    size = build_task(config.data).size("train")
    reasons = (
        (accelerator != "cuda", f"the {accelerator} device"),
        (config.model.sequences != "padded", f"model.sequences={config.model.sequences}; it needs padded"),
        (trainer.precision != "32-true", f"trainer.precision={trainer.precision}; it needs 32-true"),
        (trainer.gradient_clip_val is not None, f"trainer.gradient_clip_val={trainer.gradient_clip_val}"),
        (loop != "fast", f"the loop {loop}; it needs fast"),
        (size < config.data.batch_size, f"data.batch_size={config.data.batch_size}, for there is no full batch"),
    )
    return next((reason for is_so, reason in reasons if is_so), None)
