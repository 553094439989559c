"""Choose whether the C kernels or nn.GRU compute the recurrent part."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from grulab.config.schema import Backend, Config
from grulab.config_error import ConfigError
from grulab.kernels import library
from grulab.tasks.registry import build_task

if TYPE_CHECKING:
    from torch import nn

# The implementations that can run. model.backend may differ: it can be auto, or fused on an unsupported device.
_NAMES = {"fused": "the fused kernels", "torch": "nn.GRU"}

# A sequence of more steps takes nn.GRU seconds on a cpu.
_LONG = 1000


def gru_class(backend: str) -> "type[nn.GRU]":
    """Return the class of the recurrent part.

    Args:
        backend: "auto" uses the kernels of :class:`FusedGRU` if they are built and support the input, "fused" also
            requires that they are built, "torch" never uses them.

    Raises:
        ValueError: if the backend is unknown or not built.
    """
    # Imported here, because the other functions of this module are called before torch is imported.
    from torch import nn

    from grulab.kernels.fused import FusedGRU

    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend}: choose from {', '.join(get_args(Backend))}")
    if backend == "fused" and not library.is_built():
        raise ValueError(f"backend=fused: the kernels {library.problem()}; {library.REMEDY}, or use backend=auto")
    return nn.GRU if backend == "torch" else FusedGRU


def backend_of_weights(config: Config) -> str:
    """Return the backend to store in a checkpoint: never "fused", so that it also loads without the kernels."""
    return "torch" if config.model.backend == "torch" else "auto"


def find_backend(config: Config, accelerator: str) -> str:
    """Return the implementation that runs on "cpu", "cuda" or "mps": "fused" (the C kernels) or "torch" (nn.GRU)."""
    fits = accelerator == "cpu" and config.trainer.precision == "32-true" and library.is_built()
    return "fused" if fits and config.model.backend != "torch" else "torch"


def refuse_missing_kernels(config: Config) -> None:
    """Check that the kernels are built if ``model.backend`` is "fused".

    Raises:
        ConfigError: if they are not built.
    """
    if config.model.backend == "fused" and not library.is_built():
        raise ConfigError(
            f"model.backend=fused: the fused kernels {library.problem()}; {library.REMEDY}, or use model.backend=auto"
        )


def note_of_missing_kernels() -> str | None:
    """Return one line on the cost of missing kernels, or None if the kernels are built."""
    if library.is_built():
        return None
    return (
        f"model.backend=auto: the fused kernels {library.problem()}, so nn.GRU runs, which takes several times as "
        f"long; {library.REMEDY}"
    )


def backend_notes(config: Config, accelerator: str, backend: str, before: str | None) -> Iterator[str]:
    """Yield warnings about the choice of the backend.

    Args:
        config: the run's configuration.
        accelerator: "cpu", "cuda" or "mps".
        backend: the implementation that runs, "fused" or "torch".
        before: the implementation before the run was resumed; None for a new run.
    """
    missing = note_of_missing_kernels()
    if config.model.backend == "auto" and accelerator == "cpu" and missing:
        yield missing
    longest = build_task(config.data).length_range[1]
    if backend == "torch" and accelerator == "cpu" and longest > _LONG:
        yield (
            f"sequences have up to {longest:,} steps, and the cost of nn.GRU on a cpu grows with the square of the "
            "length: 4 times that of the fused kernels at 100 steps, 26 times at 1000, 260 times at 2000"
        )
    if config.model.backend == "fused" and backend == "torch":
        precision = config.trainer.precision
        cause = f"trainer.precision={precision}" if precision != "32-true" else f"the {accelerator} device"
        yield f"model.backend=fused has no effect with {cause}: nn.GRU runs; the kernels are for 32-true on the cpu"
    if before is not None and before != backend:
        yield (
            f"resumed with {_NAMES[backend]} after {_NAMES[before]}: the last bits differ from those of a run that "
            f"was never interrupted; model.backend={before} goes on as before"
        )
