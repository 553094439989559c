"""A GRU that classifies padded sequences of different lengths."""

from collections.abc import Callable
from typing import Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from grulab.config.schema import SequenceLayout
from grulab.internals.torch import flatten_for_cudnn, packed_gru_layer
from grulab.kernels.backend import gru_class, layout_on
from grulab.models.padded import PaddedStates


class GRUClassifier(nn.Module):
    """``nn.GRU`` over packed or padded sequences, and a linear head on its last hidden state.

    The recurrent part is ``self.gru``, an ``nn.GRU`` with PyTorch's own ``state_dict``, so its weights can be loaded
    from and into plain PyTorch. The head reads the last layer's state after the last step of a sequence. With two
    directions it reads the forward state after the last step and the backward state after the first step. Both are
    in ``h_n``; ``output[:, -1]`` holds the backward state after a single step, or padding for a padded sequence.

    Args:
        input_size: features per step.
        hidden_size: units in each layer and direction.
        num_layers: number of stacked layers.
        num_classes: number of classes.
        bidirectional: whether each layer also reads the sequence backwards.
        dropout: probability of a unit being zeroed between layers while training; no effect with one layer.
        backend: "auto", "fused" or "torch"; see :func:`grulab.kernels.backend.gru_class`.
        sequences: "packed", "padded", or "auto" for what suits the device of x; the numbers differ in the last bits.

    Raises:
        ValueError: if a size is not positive, dropout is not from 0 to 1, the backend is unknown or not built, or
            ``sequences`` is unknown.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_classes: int,
        bidirectional: bool = False,
        dropout: float = 0.0,
        backend: str = "auto",
        sequences: str = "auto",
    ) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: must be from 0 to 1")
        if sequences not in get_args(SequenceLayout):
            raise ValueError(f"sequences={sequences}: choose from {', '.join(get_args(SequenceLayout))}")
        self.sequences = sequences
        self.gru = gru_class(backend)(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            # nn.GRU warns about dropout with a single layer; grulab.config.notes has a better warning.
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.head = nn.Linear(hidden_size * (2 if bidirectional else 1), num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of each class.

        Args:
            x: (batch, time, features) float, padded at the end; the padding may hold any values, NaN included.
            lengths: (batch,) int64 on the CPU, from 1 to time, in any order. If the longest come first, as in the
                batches of the data module, the CPU does not wait for an accelerator.

        Returns:
            (batch, classes) float.

        Raises:
            ValueError: if a shape, a dtype, a device or a length is not as above.
        """
        self._check(x, lengths)
        last = self._padded(x, lengths).last() if self._is_padded(x) else self._packed(x, lengths)[1]
        logits: Tensor = self.head(last)
        return logits

    def logits_of_padded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of each class on the padded path, without a check, which would read the lengths.

        Args:
            x: as in :meth:`forward`.
            lengths: as in :meth:`forward`, but on the device of x.
        """
        logits: Tensor = self.head(PaddedStates(self.gru, x, lengths).last())
        return logits

    def hidden_states(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's states at every step, and the state that the head reads.

        Args:
            x: as in :meth:`forward`.
            lengths: as in :meth:`forward`.

        Returns:
            (batch, time, directions x hidden_size), zero after the end of a sequence; and
            (batch, directions x hidden_size).
        """
        self._check(x, lengths)
        if self._is_padded(x):
            padded = self._padded(x, lengths)
            return padded.every(), padded.last()
        packed, last = self._packed(x, lengths)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return states, last

    def _is_padded(self, x: Tensor) -> bool:
        is_mixed = x.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        return layout_on(x.device.type, self.sequences, is_mixed) == "padded"

    def _padded(self, x: Tensor, lengths: Tensor) -> PaddedStates:
        # As in PaddedBatch.to.
        non_blocking = x.device.type not in ("cpu", "mps")
        return PaddedStates(self.gru, x, lengths.to(x.device, non_blocking=non_blocking))

    def _packed(self, x: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
        # Unless the longest come first, pack_padded_sequence copies the sorting indices to the device and waits.
        steps = lengths.numpy()
        longest_first = bool((steps[1:] <= steps[:-1]).all())
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=longest_first)
        output, h_n = self._by_layer(packed) if self._has_own_dropout(x.device) else self.gru(packed)
        # h_n: (num_layers x directions, batch, hidden_size); the directions of the last layer are its last rows.
        return output, torch.cat((h_n[-2], h_n[-1]), dim=1) if self.gru.bidirectional else h_n[-1]

    def _has_own_dropout(self, device: torch.device) -> bool:
        """Return whether the layers are computed one by one, with torch's dropout between them.

        cuDNN's dropout draws from a state of its own, made once in a process, that no checkpoint holds
        (pytorch#74177): a resumed run would differ.
        """
        return device.type == "cuda" and self.gru.dropout > 0

    def _by_layer(self, packed: PackedSequence) -> tuple[PackedSequence, Tensor]:
        x, batch_sizes, sorted_indices, unsorted_indices = packed
        directions = 2 if self.gru.bidirectional else 1
        last_states = []
        for layer in range(self.gru.num_layers):
            if layer:
                x = nn.functional.dropout(x, self.gru.dropout, self.gru.training)
            own = self.gru.all_weights[layer * directions : (layer + 1) * directions]
            weights = [weight for direction in own for weight in direction]
            x, h_n = packed_gru_layer(x, batch_sizes, None, weights, self.gru.training)
            last_states.append(h_n)
        output = PackedSequence(x, batch_sizes, sorted_indices, unsorted_indices)
        return output, self.gru.permute_hidden(torch.cat(last_states), unsorted_indices)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the weights, then lay them out as cuDNN wants them for the calls of this module."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.head.weight.device
        if device.type == "cuda":
            is_padded = layout_on("cuda", self.sequences, is_mixed=False) == "padded"
            if is_padded or self._has_own_dropout(device):
                flatten_for_cudnn(self.gru, by_direction=is_padded)
        return self

    def _check(self, x: Tensor, lengths: Tensor) -> None:
        if x.dim() != 3 or x.shape[2] != self.gru.input_size:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (batch, time, {self.gru.input_size})")
        if x.shape[0] == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}: the batch is empty")
        if not x.is_floating_point():
            raise ValueError(f"x is {x.dtype}; expected floating point")
        if lengths.shape != x.shape[:1]:
            raise ValueError(
                f"lengths has shape {tuple(lengths.shape)}; expected ({x.shape[0]},) for x of shape {tuple(x.shape)}"
            )
        if lengths.device.type != "cpu":
            raise ValueError(
                f"lengths is on {lengths.device}; keep it on the cpu (PaddedBatch.to does), where packing reads it"
            )
        if lengths.dtype != torch.int64:
            raise ValueError(f"lengths is {lengths.dtype}; expected torch.int64")
        # A NumPy function takes one microsecond here, a torch function five.
        steps = lengths.numpy()
        shortest, longest = steps.min(), steps.max()
        if shortest < 1:
            raise ValueError(f"lengths holds {shortest}; a sequence has at least 1 step")
        if longest > x.shape[1]:
            raise ValueError(f"lengths holds {longest}; x of shape {tuple(x.shape)} has {x.shape[1]} steps")
