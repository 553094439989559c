"""The optimizer and the learning rate schedule."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from grulab.config.schema import Algorithm, Schedule

ALGORITHMS: dict[Algorithm, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimizer(
    parameters: Iterable[nn.Parameter], algorithm: Algorithm, lr: float, weight_decay: float, fused: bool | None
) -> torch.optim.Optimizer:
    """Return Adam or AdamW.

    Args:
        parameters: all weights of the model.
        algorithm: "adam" (weight_decay is added to the gradient) or "adamw" (it shrinks the weights themselves).
        lr: learning rate of the first step.
        weight_decay: at least 0.
        fused: whether one kernel updates all weights; None leaves the choice to torch.
    """
    return ALGORITHMS[algorithm](parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def learning_rate(schedule: Schedule, lr: float, epoch: int, horizon: int) -> float:
    """Return the learning rate of an epoch: a pure function, so that a resume has no scheduler state to restore.

    Args:
        schedule: "constant"; "linear" or "cosine": from lr in the first epoch to 0 after the last, which stays.
        lr: learning rate of the first epoch.
        epoch: number of the epoch, from 0.
        horizon: number of epochs in the schedule.
    """
    done = min(epoch / horizon, 1)
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return lr * factors[schedule]
