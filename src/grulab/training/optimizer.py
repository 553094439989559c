"""The optimizer, and the learning rate of every epoch."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from grulab.config.schema import Algorithm, Schedule

ALGORITHMS: dict[Algorithm, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimizer(
    parameters: Iterable[nn.Parameter], algorithm: Algorithm, lr: float, weight_decay: float, on_cpu: bool
) -> torch.optim.Optimizer:
    """Return Adam or AdamW.

    Args:
        parameters: all weights of the model.
        algorithm: "adam" (weight_decay is added to the gradient) or "adamw" (it shrinks the weights themselves).
        lr: learning rate of the first step.
        weight_decay: from 0.
        on_cpu: whether the weights are there: then one kernel updates all of them. On an accelerator that would not
            go with clipping in 16 bits.
    """
    return ALGORITHMS[algorithm](parameters, lr=lr, weight_decay=weight_decay, fused=on_cpu)


def learning_rate(schedule: Schedule, lr: float, epoch: int, max_epochs: int) -> float:
    """Return the learning rate of an epoch: a function of the epoch and the horizon, without a state to lose.

    Args:
        schedule: "constant", or "cosine": from lr in the first epoch towards 0 after the last.
        lr: of the first epoch.
        epoch: from 0.
        max_epochs: the horizon.
    """
    factor = 0.5 * (1 + math.cos(math.pi * epoch / max_epochs)) if schedule == "cosine" else 1.0
    return lr * factor
