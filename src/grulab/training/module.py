"""The LightningModule: a training, validation and test step, and the means over an epoch."""

from collections.abc import Sequence
from typing import Any, cast, get_args

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional

from grulab.config.schema import Algorithm, Schedule
from grulab.data.batch import PaddedBatch
from grulab.models.gru import GRUClassifier
from grulab.training.metrics import EvaluationMetrics, LossAndAccuracy, TestMetrics
from grulab.training.optimizer import learning_rate, make_optimizer

# The key of the sums of an unfinished epoch in a checkpoint.
SUMS = "train_sums"


class SequenceClassifier(L.LightningModule):
    """Trains a :class:`GRUClassifier` with cross-entropy.

    The arguments are plain numbers and strings and are stored in the checkpoint, so
    ``SequenceClassifier.load_from_checkpoint(path)`` needs no further arguments.

    Attributes:
        train_metrics, val_metrics, test_metrics: exact means over the current epoch of training, validation or test.
        test_outcomes: for each test batch the lengths, and whether each sequence was classified correctly; both
            (batch,).
        test_logits: for each test batch the logits, (batch, classes), if ``keeps_logits``.
        offers_metrics: whether the means are logged for callbacks that read ``trainer.callback_metrics``.
        keeps_logits: whether a test keeps the logits.

    Args:
        input_size: features per step.
        hidden_size: units in each layer and direction.
        num_layers: number of layers.
        num_classes: number of classes.
        bidirectional: whether the sequence is also read backwards.
        dropout: probability of dropout between layers.
        backend: implementation of the recurrent part; see :func:`grulab.kernels.backend.gru_class`.
        sequences: "auto", "packed" or "padded"; see :class:`GRUClassifier`.
        algorithm: "adam" or "adamw".
        lr: learning rate.
        weight_decay: L2 term of the gradient (adam) or decay of the weights (adamw).
        schedule: "constant", or "cosine": from lr in the first epoch towards 0 after ``horizon``.
        horizon: epochs of the schedule; None takes those of the trainer.
        class_weights: for each class the weight of its sequences in the training loss; None weighs all alike.
    """

    _class_weights: Tensor | None

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
        algorithm: str = "adam",
        lr: float = 0.02,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        horizon: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm={algorithm}: choose from {', '.join(get_args(Algorithm))}")
        if schedule not in get_args(Schedule):
            raise ValueError(f"schedule={schedule}: choose from {', '.join(get_args(Schedule))}")
        self.save_hyperparameters()
        self.model = GRUClassifier(
            input_size, hidden_size, num_layers, num_classes, bidirectional, dropout, backend, sequences
        )
        self.train_metrics = LossAndAccuracy()
        self.val_metrics = EvaluationMetrics(num_classes)
        self.test_metrics = TestMetrics(num_classes)
        self.test_outcomes: list[tuple[Tensor, Tensor]] = []
        self.test_logits: list[Tensor] = []
        self.offers_metrics = True
        self.keeps_logits = False
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"class_weights has {len(class_weights)} values, and there are {num_classes} classes")
        weights = None if class_weights is None else torch.tensor(class_weights)
        # It moves with the module, and is no part of its state: the hyperparameters have it.
        self.register_buffer("_class_weights", weights, persistent=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits, (batch, classes); see :meth:`GRUClassifier.forward`."""
        logits: Tensor = self.model(x, lengths)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam or AdamW over all weights."""
        hparams = self.hparams
        # The fused kernel unscales gradients of 16 bits itself, and Lightning cannot clip them before.
        is_unscaling = self.device.type == "cuda" and self.trainer.precision == "16-mixed"
        fused = None if self.device.type == "mps" or (is_unscaling and self.trainer.gradient_clip_val) else True
        return make_optimizer(self.parameters(), hparams["algorithm"], hparams["lr"], hparams["weight_decay"], fused)

    def on_train_start(self) -> None:
        """Set the learning rate of a run that resumes inside an epoch, perhaps with another ``max_epochs``."""
        self._set_learning_rate()

    def on_train_epoch_start(self) -> None:
        """Reset the sums. Lightning does not call this hook when a run resumes inside an epoch."""
        self.train_metrics.reset()
        self._set_learning_rate()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums over the finished batches of the epoch to the checkpoint."""
        checkpoint[SUMS] = self.train_metrics.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums from the checkpoint."""
        self.train_metrics.resume(checkpoint[SUMS])

    def training_step(self, batch: PaddedBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of the batch: ()."""
        loss, _ = self._step(batch, self.train_metrics, self._class_weights)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch for callbacks."""
        self._offer("train", self.train_metrics)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.val_metrics.reset()

    def validation_step(self, batch: PaddedBatch, batch_idx: int) -> None:
        """Add the batch to the sums."""
        self._step(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the means of the epoch for callbacks."""
        self._offer("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """Reset the sums."""
        self.test_metrics.reset()
        self.test_outcomes.clear()
        self.test_logits.clear()

    def test_step(self, batch: PaddedBatch, batch_idx: int) -> None:
        """Add the batch to the sums, and note which sequences were classified correctly."""
        _, logits = self._step(batch, self.test_metrics)
        self.test_outcomes.append((batch.lengths, logits.argmax(dim=1) == batch.y))
        if self.keeps_logits:
            self.test_logits.append(logits.cpu())

    def _step(
        self, batch: PaddedBatch, metrics: LossAndAccuracy, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits = self.model(batch.x, batch.lengths)
        # The loss needs 32 bits even if the layers ran in 16 bits.
        scores = logits if logits.dtype == torch.float64 else logits.float()
        if weights is None:
            loss = functional.cross_entropy(scores, batch.y)
        else:
            # Over the number of sequences: torch's own mean is over the batch's weights, so that a sequence would
            # count by what else is in its batch.
            losses = functional.cross_entropy(scores, batch.y, weight=weights.to(scores.dtype), reduction="none")
            loss = losses.mean()
        metrics.add(loss, logits, batch.y)
        return loss, logits

    def _set_learning_rate(self) -> None:
        horizon = self.hparams["horizon"] or cast(int, self.trainer.max_epochs)
        rate = learning_rate(self.hparams["schedule"], self.hparams["lr"], self.current_epoch, horizon)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def _offer(self, stage: str, metrics: LossAndAccuracy) -> None:
        if self.offers_metrics:
            self.log_dict({f"{stage}/{name}": value for name, value in metrics.compute().items()}, logger=False)
