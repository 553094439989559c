"""One batch of padded sequences."""

from typing import NamedTuple

import torch
from torch import Tensor

from grulab.tasks.base import Sequences


class PaddedBatch(NamedTuple):
    """Sequences of different lengths, padded at the end to the longest of them.

    ``pack_padded_sequence`` reads the lengths on the CPU. Were they moved with the rest, each step would wait for
    the accelerator to send them back (pytorch#43227), so this class moves everything but them.

    Attributes:
        x: (batch, time, features) float; what the padding holds changes nothing.
        lengths: (batch,) int64, in steps, always on the CPU.
        y: (batch,) int64, the classes.
    """

    x: Tensor
    lengths: Tensor
    y: Tensor

    @classmethod
    def of(cls, sequences: Sequences) -> "PaddedBatch":
        """Return these sequences as a batch that shares their memory."""
        return cls(*(torch.from_numpy(part) for part in sequences))

    def take(self, rows: Tensor) -> "PaddedBatch":
        """Return some of its sequences, in a batch that is padded to the longest of them: rows is (batch,) int64."""
        lengths = self.lengths[rows]
        # The cut is a view; only the batch itself is copied.
        x = self.x[:, : int(lengths.max())].index_select(0, rows)
        return PaddedBatch(x, lengths, self.y[rows])

    def to(self, device: torch.device | str) -> "PaddedBatch":
        """Return the batch with x and y on the device; the lengths stay."""
        # To a CUDA device the copy is ordered before whatever uses it; elsewhere the values might not be there yet.
        non_blocking = torch.device(device).type == "cuda"
        return PaddedBatch(
            self.x.to(device, non_blocking=non_blocking),
            self.lengths,
            self.y.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "PaddedBatch":
        """Return the batch with x and y in page-locked memory, from where an accelerator copies them by itself."""
        return PaddedBatch(self.x.pin_memory(), self.lengths, self.y.pin_memory())
