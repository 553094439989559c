"""Private parts of torch, read in version 2.13.0."""

from collections.abc import Sequence
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


def packed_gru_layer(
    x: Tensor, batch_sizes: Tensor, h_0: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Compute one GRU layer with torch's own operator.

    Args:
        x: (rows, features) float, the data of a PackedSequence.
        batch_sizes: (time,) int64 on the CPU, of the same PackedSequence.
        h_0: (directions, batch, hidden_size) float, or None for zeros.
        weights: four tensors for each direction, in nn.GRU's order.

    Returns:
        (rows, directions x hidden_size) and (directions, batch, hidden_size).
    """
    directions = len(weights) // 4
    if h_0 is None:
        h_0 = x.new_zeros(directions, int(batch_sizes[0]), weights[1].shape[1])
    output, h_n = torch._VF.gru(x, batch_sizes, h_0, list(weights), True, 1, 0.0, False, directions == 2)
    return output, h_n


def is_tracing() -> bool:
    """Return whether torch.jit.trace is running."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_negated_view(tensor: Tensor) -> bool:
    """Return whether the tensor is a view whose memory holds the numbers with the opposite sign."""
    return tensor.is_neg()


def has_workers(loader: DataLoader[Any]) -> bool:
    """Return whether the loader has worker processes that wait for its next epoch."""
    return loader._iterator is not None


def shut_down_workers(loader: DataLoader[Any]) -> None:
    """End the worker processes of a loader."""
    if loader.num_workers > 0 and loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        loader._iterator = None


def with_room_for_comment(archive: bytes, size: int) -> bytes:
    """Return a zip archive of torch.save with a comment length of ``size`` bytes; the caller appends the comment."""
    assert archive[-_END_BYTES:][:4] == _END_SIGNATURE, "torch.save ends its archive without a comment"
    return archive[:-2] + size.to_bytes(2, "little")
