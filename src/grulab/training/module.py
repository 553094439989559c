"""The LightningModule: what a step, an epoch and an optimizer are."""

import math
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional

from grulab.data.batch import PaddedBatch
from grulab.models.gru import GRUClassifier
from grulab.training.metrics import EpochMeans

SCHEDULES = ("constant", "cosine")
# Where a checkpoint keeps the sums of an unfinished epoch.
SUMS = "train_sums"
ALGORITHMS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class SequenceClassifier(L.LightningModule):
    """Trains a :class:`GRUClassifier` with cross-entropy.

    The arguments are plain numbers and strings and go into the checkpoint, so
    ``SequenceClassifier.load_from_checkpoint(path)`` needs nothing else.

    Attributes:
        train_means, val_means, test_means: exact means over the stage's current epoch.
        test_outcomes: of each test batch its lengths and whether each sequence was classified rightly.

    Args:
        input_size: features in a step.
        hidden_size: units in each layer and direction.
        num_layers: layers.
        num_classes: answers.
        bidirectional: whether the sequence is also read backwards.
        dropout: between layers.
        backend: what computes the recurrent part; see :class:`GRUClassifier`.
        algorithm: "adam" or "adamw".
        lr: learning rate.
        weight_decay: L2 term of the gradient (adam) or decay of the weights (adamw).
        schedule: "constant", or "cosine": from lr in the first epoch towards 0 after the trainer's last.
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
        algorithm: str = "adam",
        lr: float = 0.02,
        weight_decay: float = 0.0,
        schedule: str = "constant",
    ) -> None:
        super().__init__()
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm={algorithm}: choose from {', '.join(ALGORITHMS)}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule}: choose from {', '.join(SCHEDULES)}")
        self.save_hyperparameters()
        self.model = GRUClassifier(input_size, hidden_size, num_layers, num_classes, bidirectional, dropout, backend)
        self.train_means = EpochMeans()
        self.val_means = EpochMeans()
        self.test_means = EpochMeans()
        self.test_outcomes: list[tuple[Tensor, Tensor]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            # Lightning notes which hook it is in some 50 times a step, and nn.Module would look for parameters in it.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits, (batch, classes); see :meth:`GRUClassifier.forward`."""
        logits: Tensor = self.model(x, lengths)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam or AdamW over all weights."""
        kind: type[torch.optim.Adam] = ALGORITHMS[self.hparams["algorithm"]]
        return kind(
            self.parameters(),
            lr=self.hparams["lr"],
            weight_decay=self.hparams["weight_decay"],
            # One kernel for all weights. On an accelerator it would not go with clipping in 16 bits.
            fused=self.device.type == "cpu",
        )

    def learning_rate(self, epoch: int, max_epochs: int) -> float:
        """Return the learning rate of an epoch, from 0: a function of it and the horizon, with no state to lose."""
        factor = 1.0
        if self.hparams["schedule"] == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / max_epochs))
        return float(self.hparams["lr"]) * factor

    def on_train_start(self) -> None:
        """Set the learning rate also where a run goes on inside an epoch, perhaps with another horizon."""
        self._set_learning_rate()

    def on_train_epoch_start(self) -> None:
        """Begin new sums. Lightning does not call this when a run goes on inside an epoch."""
        self.train_means.reset()
        self._set_learning_rate()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums over the part of the epoch that is done."""
        checkpoint[SUMS] = self.train_means.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the sums."""
        self.train_means.resume(checkpoint[SUMS])

    def training_step(self, batch: PaddedBatch, batch_idx: int) -> Tensor:
        """Return the batch's mean loss."""
        loss, _ = self._step(batch, self.train_means)
        return loss

    def on_train_epoch_end(self) -> None:
        """Offer the epoch's means to callbacks."""
        self._offer("train", self.train_means)

    def on_validation_epoch_start(self) -> None:
        """Begin new sums."""
        self.val_means.reset()

    def validation_step(self, batch: PaddedBatch, batch_idx: int) -> None:
        """Add the batch to the sums."""
        self._step(batch, self.val_means)

    def on_validation_epoch_end(self) -> None:
        """Offer the epoch's means to callbacks."""
        self._offer("val", self.val_means)

    def on_test_epoch_start(self) -> None:
        """Begin new sums."""
        self.test_means.reset()
        self.test_outcomes.clear()

    def test_step(self, batch: PaddedBatch, batch_idx: int) -> None:
        """Add the batch to the sums, and note which sequences were classified rightly."""
        _, logits = self._step(batch, self.test_means)
        self.test_outcomes.append((batch.lengths, logits.argmax(dim=1) == batch.y))

    def _step(self, batch: PaddedBatch, means: EpochMeans) -> tuple[Tensor, Tensor]:
        logits = self.model(batch.x, batch.lengths)
        # In 32 bits also where the layers before it ran in 16.
        loss = functional.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), batch.y)
        means.add(loss, logits, batch.y)
        return loss, logits

    def _set_learning_rate(self) -> None:
        rate = self.learning_rate(self.current_epoch, cast(int, self.trainer.max_epochs))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def _offer(self, stage: str, means: EpochMeans) -> None:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if callbacks and not any(getattr(callback, "reads_metrics", True) for callback in callbacks):
            # Lightning takes a millisecond for it.
            return
        self.log_dict({f"{stage}/{name}": value for name, value in means.compute().items()}, logger=False)
