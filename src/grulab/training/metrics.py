"""Exact means over an epoch, and what follows from the confusion matrix of an evaluation."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from grulab.internals.torchmetrics import count_update, set_update_count

_BINS = 15
# A confusion matrix of more classes is neither readable nor small.
MOST_CLASSES = 100


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
        self.count()
        self.sum_up(loss, logits, y)

    def add_counted(self, loss: Tensor, hits: int, sequences: int) -> None:
        """Add a batch whose hits are counted already, on the CPU.

        Args:
            loss: (), mean loss of the batch.
            hits: number of sequences that were classified correctly.
            sequences: number of sequences.
        """
        self.count()
        # NumPy takes a fifth of torch's time for a single number, and the product is exact in 64 bits.
        self.loss_sum.numpy()[()] += loss.item() * sequences
        self.correct.numpy()[()] += hits
        self.sequences.numpy()[()] += sequences

    def count(self) -> None:
        """Count a batch that :meth:`sum_up` adds."""
        count_update(self)

    def sum_up(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Do the part of :meth:`add` that runs on the device."""
        self.loss_sum.add_(loss.detach(), alpha=len(y))
        self.correct.add_((logits.argmax(dim=1) == y).sum())
        self.sequences.add_(len(y))

    def reset(self) -> None:
        """Set the sums to 0, in the same memory, to which a CUDA graph adds."""
        before = self.sums()
        super().reset()
        for name, zero in self.sums().items():
            # Those of a validation under inference mode cannot be changed outside of it.
            if not before[name].is_inference():
                setattr(self, name, before[name].copy_(zero))

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


class EvaluationMetrics(LossAndAccuracy):
    """Mean loss and accuracy, and counts for each class, from which balanced accuracy and macro F1 are computed.

    Args:
        num_classes: number of classes.
    """

    right: Tensor
    support: Tensor
    predicted: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("right", "support", "predicted"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add a batch; see :meth:`LossAndAccuracy.add`."""
        super().add(loss, logits, y)
        # torchmetrics counts with torch.bincount, which makes the CPU wait for an accelerator.
        answer = logits.argmax(dim=1)
        ones = torch.ones_like(y)
        self.support.index_add_(0, y, ones)
        self.predicted.index_add_(0, answer, ones)
        self.right.index_add_(0, y, (answer == y).long())

    def of_each_class(self) -> "ClassTable":
        """Return precision, recall and F1 of each class since the last reset."""
        return ClassTable(*(part.cpu().numpy() for part in (self.right, self.support, self.predicted)))

    def compute(self) -> dict[str, float]:
        """Return the mean loss and accuracy, the balanced accuracy and the macro F1 since the last reset."""
        table = self.of_each_class()
        return super().compute() | {"balanced_accuracy": table.balanced_accuracy, "macro_f1": table.macro_f1}


class TestMetrics(EvaluationMetrics):
    """What :class:`EvaluationMetrics` has, the confusion matrix of at most 100 classes, and the calibration error.

    The probability of the predicted class is compared with how often it is right, in 15 bins of equal width, each
    weighted by its sequences (Guo et al. 2017, https://arxiv.org/abs/1706.04599). Unlike torchmetrics' class, this
    one keeps sums, and not every probability.
    """

    # pytest collects classes with such a name otherwise.
    __test__ = False

    bins: Tensor
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self._num_classes = num_classes
        cells = num_classes if num_classes <= MOST_CLASSES else 0
        self.add_state("confusion", torch.zeros((cells, cells), dtype=torch.int64), dist_reduce_fx="sum")
        precise = torch.float32 if torch.backends.mps.is_available() else torch.float64
        # For each bin: its sequences, the sum of their probabilities, and how many are right.
        self.add_state("bins", torch.zeros((_BINS, 3), dtype=precise), dist_reduce_fx="sum")

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add a batch; see :meth:`LossAndAccuracy.add`."""
        super().add(loss, logits, y)
        if self._num_classes <= MOST_CLASSES:
            cells = y * self._num_classes + logits.argmax(dim=1)
            self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells))
        confidence, predicted = logits.detach().to(self.bins.dtype).softmax(dim=1).max(dim=1)
        # A probability on a bound belongs to the bin below it.
        place = ((confidence * _BINS).ceil() - 1).clamp(0, _BINS - 1).long()
        in_bin = torch.nn.functional.one_hot(place, _BINS).to(self.bins.dtype)
        right = (predicted == y).to(self.bins.dtype)
        self.bins.add_(in_bin.T @ torch.stack([torch.ones_like(right), confidence, right], dim=1))

    def compute(self) -> dict[str, float]:
        """Return what :meth:`EvaluationMetrics.compute` returns, and the calibration error."""
        bins = self.bins.cpu().double()
        error = (bins[:, 1] - bins[:, 2]).abs().sum() / bins[:, 0].sum()
        return super().compute() | {"calibration_error": float(error)}


class ClassTable:
    """Precision, recall and F1 of each class; 0 where they are not defined.

    Attributes:
        precision, recall, f1: (classes,) float64.
        support: (classes,) int64, the number of sequences of each class.
        balanced_accuracy: mean recall over the classes that occur.
        macro_f1: mean F1 over the classes that occur or are predicted.

    Args:
        right: (classes,) sequences of each class that are classified correctly.
        support: (classes,) sequences of each class.
        predicted: (classes,) sequences that are taken for it.
    """

    def __init__(self, right: NDArray[np.int64], support: NDArray[np.int64], predicted: NDArray[np.int64]) -> None:
        self.support = support
        self.precision = _ratio(right, predicted)
        self.recall = _ratio(right, self.support)
        self.f1 = _ratio(2 * right, self.support + predicted)
        self.balanced_accuracy = float(self.recall[self.support > 0].mean())
        self.macro_f1 = float(self.f1[self.support + predicted > 0].mean())

    def rows(self, class_names: list[str]) -> list[dict[str, Any]]:
        """Return plain values for each class."""
        columns = zip(class_names, self.precision, self.recall, self.f1, self.support, strict=True)
        return [
            {
                "class": name,
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in columns
        ]


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
