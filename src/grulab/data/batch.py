"""One batch of padded sequences."""

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from grulab.tasks.base import Sequences


class PaddedBatch(NamedTuple):
    """Sequences of different lengths, padded at the end to the longest of them.

    ``pack_padded_sequence`` reads the lengths on the CPU. If they were moved to an accelerator, each step would wait
    until they are copied back (pytorch#43227), so this class moves x and y only.

    Attributes:
        x: (batch, time, features) float; the values of the padding have no effect.
        lengths: (batch,) int64, in steps, always on the CPU.
        y: (batch,) int64, the classes.
    """

    x: Tensor
    lengths: Tensor
    y: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as bytes through a pipe.

        In torch's shared memory each of the tensors would take a file descriptor, which costs up to ten times as much
        for small batches; and a full /dev/shm, 64 MiB in most containers, would leave the reader waiting for ever.
        """
        return PaddedBatch.of, (tuple(part.numpy(force=True) for part in self),)

    @classmethod
    def of(cls, sequences: Sequences | tuple[NDArray[Any], ...]) -> "PaddedBatch":
        """Return the sequences as a batch that shares their memory."""
        return cls(*(torch.from_numpy(part) for part in sequences))

    def take(self, rows: Tensor) -> "PaddedBatch":
        """Return the sequences at ``rows``, (batch,) int64, as a batch that is padded to the longest of them."""
        lengths = self.lengths.index_select(0, rows)
        # The slice is a view; only the selected sequences are copied.
        x = self.x[:, : int(lengths.max())].index_select(0, rows)
        return PaddedBatch(x, lengths, self.y.index_select(0, rows))

    def lengthened(self) -> "PaddedBatch":
        """Return the batch padded to :func:`rounded_length`."""
        missing = rounded_length(self.x.shape[1]) - self.x.shape[1]
        return self._replace(x=torch.nn.functional.pad(self.x, (0, 0, 0, missing))) if missing else self

    def to(self, device: torch.device | str) -> "PaddedBatch":
        """Return the batch with x and y on the device; the lengths stay on the CPU."""
        # A CUDA stream orders the copy before its use; on MPS the values might be read too early.
        non_blocking = torch.device(device).type not in ("cpu", "mps")
        return PaddedBatch(
            self.x.to(device, non_blocking=non_blocking),
            self.lengths,
            self.y.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "PaddedBatch":
        """Return the batch in page-locked memory, from which an accelerator copies asynchronously."""
        return PaddedBatch(self.x.pin_memory(), self.lengths.pin_memory(), self.y.pin_memory())


def rounded_length(steps: int) -> int:
    """Return a length of which there are few: up to 32 steps the same, and from there on at most a sixteenth more."""
    granule = 1 << max(0, (steps - 1).bit_length() - 5)
    return -(-steps // granule) * granule
