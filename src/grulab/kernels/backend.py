"""The choice between the C kernels and nn.GRU: which of them computes the recurrent part, and why."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from grulab.config.schema import Backend, Config
from grulab.config_error import ConfigError
from grulab.kernels import library

if TYPE_CHECKING:
    from torch import nn

# What runs: model.backend=auto is a wish, and so is fused where the kernels do not fit.
_NAMES = {"fused": "the fused kernels", "torch": "nn.GRU"}


def gru_class(backend: str) -> "type[nn.GRU]":
    """Return the class of the recurrent part.

    Args:
        backend: "auto" computes with the kernels of :class:`FusedGRU` where they fit and are built, "fused" insists
            that they are built, "torch" never uses them.

    Raises:
        ValueError: if the backend is unknown or not built.
    """
    # Everything else here is asked before torch is imported.
    from torch import nn

    from grulab.kernels.fused import FusedGRU

    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend}: choose from {', '.join(get_args(Backend))}")
    if backend == "fused" and not library.is_built():
        raise ValueError(f"backend=fused: the kernels {library.problem()}; {library.REMEDY}, or use backend=auto")
    return nn.GRU if backend == "torch" else FusedGRU


def backend_of_weights(config: Config) -> str:
    """Return the backend for a checkpoint: that a run insists on the kernels does not bind those who load it."""
    return "torch" if config.model.backend == "torch" else "auto"


def find_backend(config: Config, accelerator: str) -> str:
    """Return what computes on "cpu", "cuda" or "mps": "fused" (:class:`FusedGRU`'s kernels) or "torch" (nn.GRU)."""
    fits = accelerator == "cpu" and config.trainer.precision == "32-true" and library.is_built()
    return "fused" if fits and config.model.backend != "torch" else "torch"


def refuse_missing_kernels(config: Config) -> None:
    """Check that the kernels are built if the configuration insists on them.

    Raises:
        ConfigError: if not.
    """
    if config.model.backend == "fused" and not library.is_built():
        raise ConfigError(
            f"model.backend=fused: the fused kernels {library.problem()}; {library.REMEDY}, or use model.backend=auto"
        )


def note_of_missing_kernels() -> str | None:
    """Return a line on the cost of the missing kernels, or None if they are built."""
    if library.is_built():
        return None
    return (
        f"model.backend=auto: the fused kernels {library.problem()}, so nn.GRU runs, which takes several times as "
        f"long; {library.REMEDY}"
    )


def backend_notes(config: Config, accelerator: str, backend: str, before: str | None) -> Iterator[str]:
    """Yield what the user should know of the choice.

    Args:
        config: of the run.
        accelerator: "cpu", "cuda" or "mps".
        backend: the choice, "fused" or "torch".
        before: the choice of the part of the run that is resumed.
    """
    missing = note_of_missing_kernels()
    if config.model.backend == "auto" and accelerator == "cpu" and missing:
        yield missing
    if config.model.backend == "fused" and backend == "torch":
        precision = config.trainer.precision
        cause = f"trainer.precision={precision}" if precision != "32-true" else f"the {accelerator} device"
        yield f"model.backend=fused has no effect with {cause}: nn.GRU runs; the kernels are for 32-true on the cpu"
    if before is not None and before != backend:
        yield (
            f"resumed with {_NAMES[backend]} after {_NAMES[before]}: the last bits differ from those of a run that "
            f"was never interrupted; model.backend={before} goes on as before"
        )
