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
_NAMES = {
    "fused": "the fused kernels",
    "torch": "nn.GRU over packed sequences",
    "padded": "nn.GRU over padded sequences",
}
_KEYS = {
    "fused": "model.backend=fused model.sequences=packed",
    "torch": "model.backend=torch model.sequences=packed",
    "padded": "model.sequences=padded",
}

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


def layout_on(device: str, sequences: str, is_mixed: bool) -> str:
    """Return how sequences reach the recurrent part: "packed" or "padded".

    Args:
        device: the type of the device, "cpu", "cuda", "mps" or another.
        sequences: "packed" and "padded" are returned as they are; "auto" chooses.
        is_mixed: whether some operations have 16 bits.
    """
    if sequences != "auto":
        return sequences
    # Packed GRUs lose gradients on MPS (pytorch#102911), and in 16 bits on CUDA some batches had gradients that were
    # off by 5 % (torch 2.11 on an H200, issue 14). Other devices have no packed GRU at all.
    return "packed" if device == "cpu" or (device == "cuda" and not is_mixed) else "padded"


def find_backend(config: Config, accelerator: str) -> str:
    """Return the implementation that runs on "cpu", "cuda" or "mps": "fused", "torch" (both packed) or "padded"."""
    precision = config.trainer.precision
    if layout_on(accelerator, config.model.sequences, precision.endswith("mixed")) == "padded":
        return "padded"
    fits = accelerator == "cpu" and precision == "32-true" and library.is_built()
    return "fused" if fits and config.model.backend != "torch" else "torch"


def refuse_missing_kernels(config: Config) -> None:
    """Check that the kernels can run if ``model.backend`` is "fused".

    Raises:
        ConfigError: if they are not built, or the sequences are padded.
    """
    if config.model.backend == "fused" and config.model.sequences == "padded":
        raise ConfigError(
            "model.sequences=padded: the kernels of model.backend=fused read packed sequences; use model.backend=auto"
        )
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
        backend: the implementation that runs; see :func:`find_backend`.
        before: the implementation before the run was resumed; None for a new run.
    """
    missing = note_of_missing_kernels()
    if config.model.backend == "auto" and accelerator == "cpu" and missing and backend != "padded":
        yield missing
    if backend == "padded" and accelerator == "cpu" and library.is_built():
        yield (
            "model.sequences=padded: nn.GRU computes every step up to the longest of a batch, which takes several "
            "times as long on a cpu as the fused kernels of model.sequences=packed"
        )
    longest = build_task(config.data).length_range[1]
    if backend == "torch" and accelerator == "cpu" and longest > _LONG:
        yield (
            f"sequences have up to {longest:,} steps, and the cost of nn.GRU on a cpu grows with the square of the "
            "length: 4 times that of the fused kernels at 100 steps, 26 times at 1000, 260 times at 2000; that of "
            "model.sequences=padded grows with the length only"
        )
    if config.model.backend == "fused" and backend != "fused":
        precision = config.trainer.precision
        cause = f"trainer.precision={precision}" if precision != "32-true" else f"the {accelerator} device"
        yield f"model.backend=fused has no effect with {cause}: nn.GRU runs; the kernels are for 32-true on the cpu"
    if config.model.sequences == "packed" and accelerator == "mps":
        yield (
            "model.sequences=packed: packed GRUs lose gradients on mps in some versions of torch (pytorch#102911); "
            "model.sequences=auto takes the padded path there"
        )
    if before is not None and before != backend:
        yield (
            f"resumed with {_NAMES[backend]} after {_NAMES[before]}: the last bits differ from those of a run that "
            f"was never interrupted; {_KEYS[before]} goes on as before"
        )


def step_kind(config: Config, accelerator: str, backend: str, loop: str) -> str:
    """Return how training steps are computed: "fused", all of a step in one call of the kernels, or "autograd".

    Args:
        config: the run's configuration.
        accelerator: "cpu", "cuda" or "mps".
        backend: what :func:`find_backend` has found.
        loop: the training loop that runs.
    """
    is_plain = config.trainer.precision == "32-true" and accelerator == "cpu" and loop == "fast"
    return "fused" if backend == "fused" and is_plain else "autograd"
