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


def flatten_for_cudnn(gru: nn.GRU, by_direction: bool) -> None:
    """Give the weights of each layer, or of each direction of each layer, a contiguous memory of their own on CUDA.

    ``nn.GRU.flatten_parameters`` makes one of all layers; for a call with a single layer, cuDNN would copy the
    weights each time, and warn. The parameters stay the same objects.
    """
    weights = flat_weights(gru)
    cudnn = cast(Any, torch.backends.cudnn)
    if not all(weight.is_cuda and cudnn.is_acceptable(weight) for weight in weights):
        return
    mode = cudnn.rnn.get_cudnn_mode("GRU")
    is_both = gru.bidirectional and not by_direction
    size = 8 if is_both else 4
    with torch.cuda.device(weights[0].device), torch.no_grad():
        for start in range(0, len(weights), size):
            own = weights[start : start + size]
            torch._cudnn_rnn_flatten_weight(
                own, 4, own[0].shape[1], mode, gru.hidden_size, 0, 1, batch_first=False, bidirectional=is_both
            )


def packed_gru_layer(
    x: Tensor, batch_sizes: Tensor, h_0: Tensor | None, weights: Sequence[Tensor], training: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute one GRU layer with torch's own operator.

    Args:
        x: (rows, features) float, the data of a PackedSequence.
        batch_sizes: (time,) int64 on the CPU, of the same PackedSequence.
        h_0: (directions, batch, hidden_size) float, or None for zeros.
        weights: four tensors for each direction, in nn.GRU's order.
        training: whether gradients will be wanted, which only cuDNN has to know.

    Returns:
        (rows, directions x hidden_size) and (directions, batch, hidden_size).
    """
    directions = len(weights) // 4
    if h_0 is None:
        h_0 = x.new_zeros(directions, int(batch_sizes[0]), weights[1].shape[1])
    output, h_n = torch._VF.gru(x, batch_sizes, h_0, list(weights), True, 1, 0.0, training, directions == 2)
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
