"""The recurrent part over padded sequences: no packing, and no shape or operation that depends on the lengths.

MPS, XLA, ``torch.compile``, CUDA graphs and exporters need that. Each direction of each layer is one call of torch's
operator over (time, batch, features). The backward direction reads each sequence reversed within its own length; that
reversal of rows is its own inverse, so its gradient is the same selection of rows, and deterministic everywhere.
Padding is replaced by zeros with a selection, because 0 times NaN is NaN.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaddedStates:
    """The states of a GRU's last layer.

    Args:
        gru: with ``batch_first``; dropout acts between its layers if it is in training mode.
        x: (batch, time, features) float; the padding may hold any values, NaN included.
        lengths: (batch,) int64 on the device of x, from 1 to time, in any order.
    """

    def __init__(self, gru: nn.GRU, x: Tensor, lengths: Tensor) -> None:
        batch, time, _ = x.shape
        steps = torch.arange(time, device=x.device)[:, None]
        # All three (time, batch); (time x batch,) row numbers of the reversed sequences.
        self._valid, self._ends = (steps < lengths)[..., None], (steps == lengths - 1)[..., None]
        reversed_steps = torch.where(steps < lengths, lengths - 1 - steps, steps)
        self._rows = (reversed_steps * batch + torch.arange(batch, device=x.device)).reshape(-1)
        self._outputs = self._layers(gru, _select(self._valid, x.transpose(0, 1)))

    def last(self) -> Tensor:
        """Return the state of each direction after its last step: (batch, directions x hidden_size)."""
        # A sum of one state and zeros is exact, and its gradient is a selection.
        return torch.cat([_select(self._ends, output).sum(0) for output in self._outputs], dim=1)

    def every(self) -> Tensor:
        """Return the states at every step, zero after a sequence's end: (batch, time, directions x hidden_size)."""
        return _select(self._valid, self._in_order(self._outputs)).transpose(0, 1)

    def _layers(self, gru: nn.GRU, x: Tensor) -> list[Tensor]:
        """Return the last layer's states of each direction, (time, batch, hidden_size), in its order of reading."""
        directions = 2 if gru.bidirectional else 1
        h_0 = x.new_zeros(1, x.shape[1], gru.hidden_size)
        outputs: list[Tensor] = []
        for layer in range(gru.num_layers):
            if layer:
                x = functional.dropout(self._in_order(outputs), gru.dropout, gru.training)
            outputs = []
            for direction in range(directions):
                weights: list[Tensor] = [*gru.all_weights[layer * directions + direction]]
                given = self._reversed(x) if direction else x
                output, _ = torch.gru(given, h_0, weights, True, 1, 0.0, gru.training, False, False)
                outputs.append(output)
        return outputs

    def _in_order(self, outputs: list[Tensor]) -> Tensor:
        """Return the states of all directions in the order of the steps: (time, batch, directions x hidden_size)."""
        return outputs[0] if len(outputs) == 1 else torch.cat([outputs[0], self._reversed(outputs[1])], dim=2)

    def _reversed(self, x: Tensor) -> Tensor:
        """Reverse each sequence within its own length."""
        time, batch, width = x.shape
        return _select_rows(x.reshape(time * batch, width), self._rows).view(time, batch, width)


def _select(mask: Tensor, x: Tensor) -> Tensor:
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _select_rows(x: Tensor, rows: Tensor) -> Tensor:
    # Dynamo traces a call of apply, and no stored one.
    selected: Tensor = _SelectRows.apply(x, rows)  # type: ignore[no-untyped-call]
    return selected


class _SelectRows(torch.autograd.Function):
    """``x[rows]`` for an order of rows that is its own inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, d_selected: Tensor) -> tuple[Tensor, None]:
        # torch's own gradient of index_select adds with atomics on CUDA, in any order.
        (rows,) = ctx.saved_tensors
        return _select_rows(d_selected, rows), None
