"""Stop a run when its loss is NaN or infinite."""

import math
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from grulab.training.metrics import LossAndAccuracy
from grulab.training.module import SequenceClassifier

# Reading a loss makes the CPU wait for the accelerator, so the losses there are read once in this many steps.
_STEPS_BETWEEN_READINGS = 50
_REMEDY = "lower optimizer.lr or set trainer.gradient_clip_val"


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class TerminateOnNaN(L.Callback):
    """Stops the run when the loss is NaN or infinite, with an error that names the step (from 0).

    On the CPU the run stops before that step changes a weight. On an accelerator the losses stay on the device and
    are read every 50 steps and at the end of the epoch, before anything is saved; the error still names the right
    step.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._first_step = 0

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Check the loss on the CPU; keep it for a later check on an accelerator."""
        if loss.device.type == "cpu":
            self._check(loss.item(), trainer.global_step)
            return
        if not self._losses:
            self._first_step = trainer.global_step
        self._losses.append(loss.detach())
        if len(self._losses) == _STEPS_BETWEEN_READINGS:
            self._read()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the validation loss, because no training loss covers the weights after the epoch's last step."""
        self._check_mean("validation", cast(SequenceClassifier, pl_module).val_metrics, trainer.global_step)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the test loss, because the test split may be harder than the validation split."""
        self._check_mean("test", cast(SequenceClassifier, pl_module).test_metrics, trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the remaining losses of the epoch, so that an epoch with a non-finite loss is not recorded."""
        self._read()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the remaining losses before a checkpoint is written inside an epoch."""
        self._read()

    def _read(self) -> None:
        losses, self._losses = self._losses, []
        for offset, loss in enumerate(torch.stack(losses).tolist() if losses else []):
            self._check(loss, self._first_step + offset)

    @staticmethod
    def _check_mean(split: str, means: LossAndAccuracy, step: int) -> None:
        loss = means.compute()["loss"]
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the {split} loss is {loss} after step {step - 1}: {_REMEDY}")

    @staticmethod
    def _check(loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss is {loss} at step {step}: {_REMEDY}")
