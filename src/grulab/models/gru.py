"""A GRU that reads padded sequences of different lengths and answers one of several classes."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from grulab.kernels.backend import gru_class


class GRUClassifier(nn.Module):
    """``nn.GRU`` over packed sequences, and a linear head on its last hidden state.

    The recurrent part is ``self.gru``, an ``nn.GRU`` whose ``state_dict`` is PyTorch's own, so its weights move in
    and out of plain PyTorch. The head reads the last layer's state after a sequence's last step; with two directions
    it reads both: after the last step forwards and after the first step backwards (``h_n``, not ``output[:, -1]``,
    which for the backward direction is the state after a single step, and for a padded sequence is padding).

    Args:
        input_size: features in a step.
        hidden_size: units in each layer and direction.
        num_layers: layers, each reading the one below.
        num_classes: answers.
        bidirectional: whether each layer also reads the sequence backwards.
        dropout: probability of a unit being zeroed between layers while training; no effect with one layer.
        backend: "auto", "fused" or "torch"; see :func:`grulab.kernels.backend.gru_class`.

    Raises:
        ValueError: if a size is not positive, dropout no probability, or the backend unknown or not built.
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
    ) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: must be from 0 to 1")
        self.gru = gru_class(backend)(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            # nn.GRU would warn of a dropout without layers to act between; grulab.config.notes says it better.
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.head = nn.Linear(hidden_size * (2 if bidirectional else 1), num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of each class.

        Args:
            x: (batch, time, features) float, padded at the end; the padding may hold anything, NaN included.
            lengths: (batch,) int64 on the CPU, from 1 to time, in any order; with the longest first, as the data
                module delivers them, nothing waits for an accelerator.

        Returns:
            (batch, classes) float.

        Raises:
            ValueError: if a shape, a type, a device or a length is not as above.
        """
        _, last = self._recur(x, lengths)
        logits: Tensor = self.head(last)
        return logits

    def hidden_states(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's states at every step, and the one that the head reads.

        Args:
            x: as in :meth:`forward`.
            lengths: as in :meth:`forward`.

        Returns:
            (batch, time, directions x hidden_size), zero after a sequence's end; and
            (batch, directions x hidden_size).
        """
        packed, last = self._recur(x, lengths)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return states, last

    def _recur(self, x: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
        self._check(x, lengths)
        # In another order than longest first, pack_padded_sequence sends the order to the device and waits.
        steps = lengths.numpy()
        longest_first = bool((steps[1:] <= steps[:-1]).all())
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=longest_first)
        output, h_n = self.gru(packed)
        # h_n: (num_layers x directions, batch, hidden_size), a layer's directions side by side, the last layer last.
        return output, torch.cat((h_n[-2], h_n[-1]), dim=1) if self.gru.bidirectional else h_n[-1]

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
        # NumPy's functions take a microsecond where torch's take five.
        steps = lengths.numpy()
        shortest, longest = steps.min(), steps.max()
        if shortest < 1:
            raise ValueError(f"lengths holds {shortest}; a sequence has at least 1 step")
        if longest > x.shape[1]:
            raise ValueError(f"lengths holds {longest}; x of shape {tuple(x.shape)} has {x.shape[1]} steps")
