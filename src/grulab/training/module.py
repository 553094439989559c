"""The LightningModule: a training, validation and test step, and the means over an epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional

from grulab.config.schema import Algorithm, Schedule
from grulab.data.batch import PaddedBatch
from grulab.models.gru import GRUClassifier
from grulab.training.metrics import EvaluationMetrics, LossAndAccuracy, TestMetrics
from grulab.training.optimizer import learning_rate, make_optimizer

if TYPE_CHECKING:
    from grulab.kernels.step import TrainingStep

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
        lengthens_batches: whether training batches are padded to one of few lengths; see ``trainer.cuda_graphs``.
        learning_rate: that of the current epoch.
        fused_step: does the whole training step in one call of the kernels; None leaves it to autograd. The fast loop
            sets it; see :mod:`grulab.kernels.step`.

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
        schedule: "constant"; "linear" or "cosine": from lr in the first epoch towards 0 after ``horizon``.
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
        self.lengthens_batches = False
        self.learning_rate = lr
        self.keeps_logits = False
        self.fused_step: TrainingStep | None = None
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
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                # With CUDA graphs they are others, and any run may go on from the checkpoint.
                group["lr"], group["capturable"] = self.learning_rate, False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums from the checkpoint."""
        self.train_metrics.resume(checkpoint[SUMS])

    def training_step(self, batch: PaddedBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of the batch: (). With ``fused_step`` it has no gradient: the weights have changed."""
        if self.fused_step is not None:
            loss = self.fused_step(batch.x, batch.lengths, batch.y)
            self.train_metrics.add_counted(loss, self.fused_step.hits, len(batch.y))
            return loss
        batch = batch.lengthened() if self.lengthens_batches else batch
        logits = self.model(batch.x, batch.lengths)
        loss = self.training_loss(logits, batch.y)
        self.train_metrics.add(loss, logits, batch.y)
        return loss

    def training_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a batch, (), with the weights of the classes.

        Args:
            logits: (batch, classes).
            y: (batch,) int64.
        """
        if self._class_weights is None:
            return functional.cross_entropy(_exact(logits), y)
        # Over the number of sequences: torch's own mean is over the batch's weights, so that a sequence would count
        # by what else is in its batch.
        weights = self._class_weights.to(_exact(logits).dtype)
        return functional.cross_entropy(_exact(logits), y, weight=weights, reduction="none").mean()

    @property
    def class_weights(self) -> Tensor | None:
        """The weights of the classes in the training loss, (classes,), or None."""
        return self._class_weights

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch for callbacks."""
        self._offer("train", self.train_metrics)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.val_metrics.reset()

    def validation_step(self, batch: PaddedBatch, batch_idx: int) -> None:
        """Add the batch to the sums."""
        self._evaluate(batch, self.val_metrics)

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
        logits = self._evaluate(batch, self.test_metrics)
        self.test_outcomes.append((batch.lengths, logits.argmax(dim=1) == batch.y))
        if self.keeps_logits:
            self.test_logits.append(_exact(logits).cpu())

    def _evaluate(self, batch: PaddedBatch, metrics: EvaluationMetrics) -> Tensor:
        """Add a batch to the sums; return its logits, (batch, classes)."""
        logits: Tensor = self.model(batch.x, batch.lengths)
        metrics.add(functional.cross_entropy(_exact(logits), batch.y), logits, batch.y)
        return logits

    def _set_learning_rate(self) -> None:
        horizon = self.hparams["horizon"] or cast(int, self.trainer.max_epochs)
        rate = learning_rate(self.hparams["schedule"], self.hparams["lr"], self.current_epoch, horizon)
        self.learning_rate = rate
        for group in self.trainer.optimizers[0].param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _offer(self, stage: str, metrics: LossAndAccuracy) -> None:
        if self.offers_metrics:
            self.log_dict({f"{stage}/{name}": value for name, value in metrics.compute().items()}, logger=False)


def _exact(logits: Tensor) -> Tensor:
    """Return the logits in 32 bits at least, which a loss needs even if the layers ran in 16."""
    return logits if logits.dtype == torch.float64 else logits.float()
