"""Exact mean loss and accuracy over an epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric

from grulab.internals.torchmetrics import count_update, set_update_count


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over sequences: sums over sequences divided by their number.

    A mean of batch means would give the sequences of a small batch more weight. The sums stay on the accelerator,
    and the CPU does not wait for them before :meth:`compute`.
    """

    # Only forward() reads this, and it is not used here: an update is a plain addition.
    full_state_update = False

    loss_sum: Tensor
    correct: Tensor
    sequences: Tensor

    def __init__(self) -> None:
        # add() bypasses the wrapper that clears the cache, so a cached mean would be out of date.
        super().__init__(compute_with_cache=False)
        # 64 bits, because a 32-bit sum of a million losses loses its sixth digit. MPS has 32-bit floats only.
        precise = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("loss_sum", torch.zeros((), dtype=precise), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sequences", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add a batch; see :meth:`add`."""
        self.add(loss, logits, y)

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add a batch without torchmetrics' wrapper around ``update``, which takes ten times as long as the sums.

        Args:
            loss: (), mean loss of the batch.
            logits: (batch, classes).
            y: (batch,) int64, the correct classes.
        """
        count_update(self)
        self.loss_sum.add_(loss.detach(), alpha=len(y))
        self.correct.add_((logits.argmax(dim=1) == y).sum())
        self.sequences.add_(len(y))

    def sums(self) -> dict[str, Tensor]:
        """Return the sums, which :meth:`resume` restores."""
        return {"loss_sum": self.loss_sum, "correct": self.correct, "sequences": self.sequences}

    def resume(self, sums: dict[str, Tensor]) -> None:
        """Restore the result of :meth:`sums`, on this metric's device."""
        self.reset()
        for name, value in sums.items():
            getattr(self, name).copy_(value)
        set_update_count(self, int(sums["sequences"]))

    def compute(self) -> dict[str, float]:
        """Return the mean loss and accuracy of all batches since the last reset."""
        count = int(self.sequences)
        return {"loss": float(self.loss_sum) / count, "accuracy": int(self.correct) / count}
