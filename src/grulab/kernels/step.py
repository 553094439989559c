"""A whole training step in one call of gru.c: GRU, head, loss, gradients, clipping and the optimizer."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grulab.kernels.fused import FusedGRU, _lanes_for, _library

_Address = ctypes.c_void_p
_Long = ctypes.c_int64


class _Parameter(ctypes.Structure):
    """``struct gru_parameter`` of gru.c, which documents the fields."""

    _fields_ = [("size", _Long), *((name, _Address) for name in ("weight", "gradient", "mean", "square", "steps"))]


class _Step(ctypes.Structure):
    """``struct gru_step`` of gru.c, which documents the fields."""

    _fields_ = [
        *((name, _Long) for name in ("input_size", "hidden_size", "directions", "num_layers", "classes")),
        *((name, _Long) for name in ("batch", "time")),
        *((name, _Address) for name in ("x", "lengths", "y", "masks", "class_weights")),
        ("parameters", _Long),
        ("parameter", _Address),
        ("clip", ctypes.c_double),
        ("is_decoupled", _Long),
        *((name, ctypes.c_float) for name in ("gain_1", "beta_2", "gain_2", "epsilon", "weight_decay", "shrink")),
        *((name, ctypes.c_float) for name in ("rate", "root_of_correction")),
        *((name, _Address) for name in ("loss", "hits")),
        ("threads", _Long),
        ("arena", _Address),
        ("arena_size", _Long),
    ]


_FINE, _NO_MEMORY, _NOT_VALID, _NOT_FINITE = range(4)


class TrainingStep:
    """The training step of a GRU classifier with Adam or AdamW, for plain float32 tensors on the CPU.

    It computes what autograd and the optimizer compute, in the parameters and the optimizer's state themselves; the
    gradients stay its own, so ``parameter.grad`` is not set. A loss that is not finite changes nothing.

    Args:
        gru: the recurrent part.
        head: the linear layer on its last states.
        optimizer: Adam or AdamW over the parameters of both, in this order.
        clip: largest norm of all gradients, or None.
        class_weights: (classes,) float32, or None.

    Attributes:
        steps: the number of steps so far.
    """

    def __init__(
        self,
        gru: FusedGRU,
        head: nn.Linear,
        optimizer: torch.optim.Optimizer,
        clip: float | None,
        class_weights: Tensor | None,
    ) -> None:
        assert _library().gru_step_size() == ctypes.sizeof(_Step), "gru.c and step.py disagree"
        self._gru, self._optimizer, self._class_weights = gru, optimizer, class_weights
        (self._group,) = optimizer.param_groups
        self._parameters: list[nn.Parameter] = self._group["params"]
        self._dropout = gru.dropout if gru.num_layers > 1 else 0.0
        self._loss = torch.zeros(())
        self._hits = np.zeros(1, dtype=np.int64)
        self._gradients = [torch.empty_like(parameter) for parameter in self._parameters]
        self._masks: Any = (_Address * max(1, gru.num_layers - 1))()
        beta_1, beta_2 = self._group["betas"]
        self._step = _Step(
            input_size=gru.input_size,
            hidden_size=gru.hidden_size,
            directions=2 if gru.bidirectional else 1,
            num_layers=gru.num_layers,
            classes=head.out_features,
            class_weights=None if class_weights is None else class_weights.data_ptr(),
            parameters=len(self._parameters),
            clip=clip or 0.0,
            is_decoupled=isinstance(optimizer, torch.optim.AdamW),
            gain_1=1 - beta_1,
            beta_2=beta_2,
            gain_2=1 - beta_2,
            epsilon=self._group["eps"],
            weight_decay=self._group["weight_decay"],
            loss=self._loss.data_ptr(),
            hits=self._hits.ctypes.data,
        )
        self._lanes = _lanes_for(gru.hidden_size)
        self._kernel = _library().gru_train
        self._pointer = ctypes.byref(self._step)
        self.steps = 0
        self.begin()

    @property
    def hits(self) -> int:
        """How many sequences of the last batch were classified correctly."""
        return int(self._hits[0])

    def begin(self) -> None:
        """Look up where the parameters and the optimizer's state are; call it when they may have been replaced."""
        states = []
        for parameter in self._parameters:
            state = self._optimizer.state[parameter]
            if not state:
                # As torch does at its first step.
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            states.append(state)
        self.steps = int(states[0]["step"])
        self._kept = (_Parameter * len(states))(
            *(
                _Parameter(
                    parameter.numel(),
                    parameter.data_ptr(),
                    gradient.data_ptr(),
                    state["exp_avg"].data_ptr(),
                    state["exp_avg_sq"].data_ptr(),
                    state["step"].data_ptr(),
                )
                for parameter, gradient, state in zip(self._parameters, self._gradients, states, strict=True)
            )
        )
        self._step.parameter = ctypes.addressof(self._kept)

    def __call__(self, x: Tensor, lengths: Tensor, y: Tensor) -> Tensor:
        """Train on a batch.

        Args:
            x: (batch, time, features) float32, padded at the end.
            lengths: (batch,) int64, the longest first.
            y: (batch,) int64, the classes.

        Returns:
            The mean loss, (). If it is not finite, nothing has changed.

        Raises:
            ValueError: if a length or a class is not valid.
            MemoryError: if there is not enough memory.
        """
        x, lengths, y = x.contiguous(), lengths.contiguous(), y.contiguous()
        if x.dtype != torch.float32 or x.shape[2] != self._gru.input_size or not len(x) == len(lengths) == len(y):
            raise ValueError(
                f"x is {x.dtype} of shape {tuple(x.shape)}, with {len(lengths)} lengths and {len(y)} classes"
            )
        step, group = self._step, self._group
        step.threads = torch.get_num_threads()
        step.batch, step.time = x.shape[0], x.shape[1]
        step.x, step.lengths, step.y = x.data_ptr(), lengths.data_ptr(), y.data_ptr()
        count = self.steps + 1
        lr, (beta_1, beta_2) = group["lr"], group["betas"]
        step.rate = lr / (1 - beta_1**count)
        step.root_of_correction = math.sqrt(1 - beta_2**count)
        step.shrink = 1 - lr * group["weight_decay"]
        masks = self._draw_masks(lengths) if self._dropout else None
        failed = self._kernel(self._pointer, self._lanes)
        del masks
        if failed == _NOT_VALID:
            raise ValueError("a length is not from 1 to time, or the longest is not first, or there is no such class")
        if failed == _NO_MEMORY:
            raise MemoryError(f"no memory for a step of {x.shape[0]} sequences of up to {x.shape[1]} steps")
        if failed != _NOT_FINITE:
            self.steps = count
        return self._loss.clone()

    def _draw_masks(self, lengths: Tensor) -> Sequence[Tensor]:
        """Draw what dropout multiplies by, from torch's generator and as torch.dropout does."""
        rows, width, keep = int(lengths.sum()), self._step.directions * self._step.hidden_size, 1 - self._dropout
        masks = [torch.empty(rows, width).bernoulli_(keep).div_(keep) for _ in range(self._step.num_layers - 1)]
        for place, mask in enumerate(masks):
            self._masks[place] = mask.data_ptr()
        self._step.masks = ctypes.addressof(self._masks)
        return masks

    def __del__(self) -> None:
        """Free the memory of the kernel."""
        if hasattr(self, "_step"):
            _library().gru_step_end(self._pointer)
