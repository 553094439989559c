"""``nn.GRU`` with the compiled kernels of gru.c for the inputs that they support."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from grulab.internals.torch import flat_weights, is_negated_view, is_tracing, packed_gru_layer
from grulab.kernels import library

_Address = ctypes.c_void_p
_Four = _Address * 4
_Weights = _Four * 2


class _Layer(ctypes.Structure):
    """``struct gru_layer`` of gru.c, which documents the fields."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("input_size", "hidden_size", "directions", "steps", "rows")),
        *((name, _Address) for name in ("batch_sizes", "x")),
        ("weights", _Weights),
        *((name, _Address) for name in ("h_0", "output", "h_n", "gates", "d_output", "d_h", "d_x")),
        ("d_weights", _Weights),
        ("threads", ctypes.c_int64),
    ]


@cache
def _library() -> ctypes.CDLL:
    kernels = library.load()
    assert kernels.gru_layer_size() == ctypes.sizeof(_Layer), "gru.c and fused.py disagree"
    return kernels


@cache
def widest_lanes() -> int:
    """Return the number of floats in the widest vectors of this machine: 16 (AVX-512), 8 (AVX2) or 4."""
    return int(_library().gru_lanes())


class FusedGRU(nn.GRU):
    """A drop-in replacement for ``nn.GRU``: same arguments, parameters, ``state_dict`` and numbers, faster on a CPU.

    The compiled kernels compute packed float32 sequences on the CPU, forward and backward, on as many cores as
    ``torch.get_num_threads()`` says, and with the same bits for any number of them. ``nn.GRU`` computes all other
    cases (another device or dtype, autocast, padded input, no bias, tracing), and every case if the kernels are not
    built.

    Second derivatives (``create_graph=True``) are those of ``nn.GRU``, in its time; forward-mode derivatives are not
    supported.
    """

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the output and h_n; see ``nn.GRU``.

        Args:
            input: a PackedSequence, or any other input of ``nn.GRU``.
            hx: (num_layers x directions, batch, hidden_size), or None for zeros.
        """
        all_weights = flat_weights(self)
        if not self._fits(input, hx, all_weights):
            return super().forward(input, hx)
        x, batch_sizes, sorted_indices, unsorted_indices = input
        directions = 2 if self.bidirectional else 1
        self.check_input(x, batch_sizes)
        if hx is not None:
            self.check_hidden_size(hx, (self.num_layers * directions, int(batch_sizes[0]), self.hidden_size))
            hx = self.permute_hidden(hx, sorted_indices)
        last_states = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                x = torch.dropout(x, self.dropout, train=True)
            weights = all_weights[layer * 4 * directions : (layer + 1) * 4 * directions]
            h_0 = None if hx is None else hx[layer * directions : (layer + 1) * directions]
            x, h_n = _FusedLayer.apply(torch.is_grad_enabled(), x, batch_sizes, h_0, *weights)  # type: ignore[no-untyped-call]
            last_states.append(h_n)
        h_n = last_states[0] if self.num_layers == 1 else torch.cat(last_states)
        output = PackedSequence(x, batch_sizes, sorted_indices, unsorted_indices)
        return output, self.permute_hidden(h_n, unsorted_indices)

    def _fits(self, sequences: Any, hx: Any, weights: Sequence[Tensor]) -> bool:
        return (
            library.is_built()
            and isinstance(sequences, PackedSequence)
            and sequences.batch_sizes.dtype == torch.int64
            and self.bias
            and all(_is_plain(tensor) for tensor in (sequences.data, *weights, hx) if tensor is not None)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not is_tracing()
        )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is a plain float32 tensor on the CPU: strided, no subclass, no lazy negation."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        and not is_negated_view(tensor)
    )


class _FusedLayer(torch.autograd.Function):
    """One layer, in one or both directions."""

    @staticmethod
    def forward(
        ctx: Any, with_gradients: bool, x: Tensor, batch_sizes: Tensor, h_0: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the output (rows, directions x hidden_size) and h_n (directions, batch, hidden_size)."""
        inputs = (x, batch_sizes, h_0, *weights)
        x, batch_sizes, h_0, *weights = _contiguous(inputs)  # type: ignore[assignment]
        directions, hidden_size = len(weights) // 4, weights[1].shape[1]
        for weight, columns in zip(weights, ((x.shape[1],), (hidden_size,), (), ()) * directions, strict=True):
            if weight.shape != (3 * hidden_size, *columns):
                raise ValueError(f"a weight has shape {tuple(weight.shape)}; expected {(3 * hidden_size, *columns)}")
        output = x.new_empty(len(x), directions * hidden_size)
        h_n = x.new_empty(directions, int(batch_sizes[0]), hidden_size)
        # The caller passes with_gradients, because inside this function autograd is always disabled.
        gates = None
        if with_gradients and any(ctx.needs_input_grad):
            if _library().gru_keeps_gates(len(x), hidden_size, directions):
                gates = x.new_empty(directions, len(x), 4 * hidden_size)
            # The inputs themselves, which are connected to their graphs, and no contiguous copies.
            ctx.save_for_backward(output, gates, *inputs)
            ctx.set_materialize_grads(False)
        layer = _layer(x, batch_sizes, h_0, output, gates, weights)
        layer.h_n = _address(h_n)
        _run(_library().gru_forward, layer)
        return output, h_n

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the arguments of :meth:`forward`."""
        output, gates, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The caller asks for a graph of the gradients (create_graph), which the kernels cannot make.
            return _differentiable_backward(ctx, inputs, d_output, d_h_n)
        x, batch_sizes, h_0, *weights = _contiguous(inputs)
        layer = _layer(x, batch_sizes, h_0, output, gates, weights)
        d_output = None if d_output is None else d_output.resolve_neg().contiguous()
        # The kernel replaces the gradient with respect to h_n by the gradient with respect to h_0.
        if d_h_n is None:
            d_h = x.new_zeros(layer.directions, int(batch_sizes[0]), layer.hidden_size)
        else:
            d_h = d_h_n.resolve_neg().clone(memory_format=torch.contiguous_format)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        d_weights = [torch.empty_like(weight) for weight in weights]
        layer.d_output, layer.d_h, layer.d_x = _address(d_output), _address(d_h), _address(d_x)
        layer.d_weights = _addresses(d_weights)
        _run(_library().gru_backward, layer)
        return None, d_x, None, d_h if h_0 is not None else None, *d_weights


def _contiguous(tensors: Sequence[Any]) -> list[Any]:
    """Return the tensors with contiguous memory; None stays None."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _differentiable_backward(
    ctx: Any, inputs: Sequence[Any], d_output: Tensor | None, d_h_n: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of :meth:`_FusedLayer.backward` with a graph of their own, from torch's operator."""
    x, batch_sizes, h_0, *weights = inputs
    outputs = packed_gru_layer(x, batch_sizes, h_0, weights)
    pairs = [(out, grad) for out, grad in zip(outputs, (d_output, d_h_n), strict=True) if grad is not None]
    arguments = (None, x, None, h_0, *weights)
    wanted = [place for place, needed in enumerate(ctx.needs_input_grad) if needed]
    found = torch.autograd.grad(
        [out for out, _ in pairs],
        [arguments[place] for place in wanted],
        [grad for _, grad in pairs],
        create_graph=True,
        allow_unused=True,
    )
    gradients = dict(zip(wanted, found, strict=True))
    return tuple(gradients.get(place) for place in range(len(arguments)))


def _layer(
    x: Tensor,
    batch_sizes: Tensor,
    h_0: Tensor | None,
    output: Tensor,
    gates: Tensor | None,
    weights: Sequence[Tensor],
) -> _Layer:
    return _Layer(
        input_size=x.shape[1],
        hidden_size=weights[1].shape[1],
        directions=len(weights) // 4,
        steps=len(batch_sizes),
        rows=len(x),
        batch_sizes=_address(batch_sizes),
        x=_address(x),
        weights=_addresses(weights),
        h_0=_address(h_0),
        output=_address(output),
        gates=_address(gates),
        threads=torch.get_num_threads(),
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _addresses(weights: Sequence[Tensor]) -> Any:
    addresses = [weight.data_ptr() for weight in weights]
    return _Weights(_Four(*addresses[:4]), _Four(*addresses[4:]))


def _run(kernel: Any, layer: _Layer) -> None:
    # ctypes releases the GIL during the call.
    failed = kernel(ctypes.byref(layer), _lanes_for(layer.hidden_size))
    if failed == 2:
        raise ValueError(
            f"batch_sizes is not that of a packed batch of {layer.rows} rows: at least 1 each, and never increasing"
        )
    if failed:
        raise MemoryError(f"no memory for a GRU layer of {layer.rows} rows and {layer.hidden_size} units")


def _lanes_for(hidden_size: int) -> int:
    """Return the number of floats in a vector: at most 8 for 8 units or fewer, which would leave half of 16 idle."""
    widest = widest_lanes()
    return min(widest, 8) if hidden_size <= 8 else widest
