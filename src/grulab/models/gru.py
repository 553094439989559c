"""A GRU that classifies padded sequences of different lengths."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from grulab.kernels.backend import gru_class


class GRUClassifier(nn.Module):
    """``nn.GRU`` over packed sequences, and a linear head on its last hidden state.

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

    Raises:
        ValueError: if a size is not positive, dropout is not from 0 to 1, or the backend is unknown or not built.
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
        _, last = self._recur(x, lengths)
        logits: Tensor = self.head(last)
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
        packed, last = self._recur(x, lengths)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return states, last

    def _recur(self, x: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
        self._check(x, lengths)
        # Unless the longest come first, pack_padded_sequence copies the sorting indices to the device and waits.
        steps = lengths.numpy()
        longest_first = bool((steps[1:] <= steps[:-1]).all())
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=longest_first)
        output, h_n = self.gru(packed)
        # h_n: (num_layers x directions, batch, hidden_size); the directions of the last layer are its last rows.
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
        # A NumPy function takes one microsecond here, a torch function five.
        steps = lengths.numpy()
        shortest, longest = steps.min(), steps.max()
        if shortest < 1:
            raise ValueError(f"lengths holds {shortest}; a sequence has at least 1 step")
        if longest > x.shape[1]:
            raise ValueError(f"lengths holds {longest}; x of shape {tuple(x.shape)} has {x.shape[1]} steps")
