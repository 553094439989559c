"""Private parts of torch, read in version 2.13.0."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

# A zip archive without a comment ends with this signature, 16 bytes, and the comment's length in two bytes.
_END_SIGNATURE = b"PK\x05\x06"
_END_BYTES = 22


def flat_weights(gru: nn.GRU) -> list[Tensor]:
    """Return the weights of a GRU in nn.GRU's order: four tensors for each layer and direction."""
    # A parametrization creates new tensors; this call of nn.GRU looks them up.
    gru._update_flat_weights()
    return cast(list[Tensor], gru._flat_weights)


def is_tracing() -> bool:
    """Return whether torch.jit.trace is running."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_negated_view(tensor: Tensor) -> bool:
    """Return whether the tensor is a view whose memory holds the numbers with the opposite sign."""
    return tensor.is_neg()


def shut_down_workers(loader: DataLoader[Any]) -> None:
    """End the worker processes of a loader."""
    if loader.num_workers > 0 and loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        loader._iterator = None


def with_room_for_comment(archive: bytes, size: int) -> bytes:
    """Return a zip archive of torch.save with a comment length of ``size`` bytes; the caller appends the comment."""
    assert archive[-_END_BYTES:][:4] == _END_SIGNATURE, "torch.save ends its archive without a comment"
    return archive[:-2] + size.to_bytes(2, "little")
