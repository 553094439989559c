"""Chrono initialization: biases of the update gate that let units remember for long before they have learned to."""

import torch
from torch import nn


def set_chrono_biases(gru: nn.GRU, length: int) -> None:
    """Draw the bias of the update gate of every unit from log(uniform(1, length - 1)).

    A unit whose gate is at sigmoid(log t) = t / (1 + t) forgets with a time constant of t + 1 steps, so all times
    from 2 to ``length`` are there from the beginning. nn.GRU keeps the old state where the gate is 1, so the bias is
    positive; in the paper's convention it is negative. Source: Tallec and Ollivier 2018, Can recurrent neural
    networks warp time?, https://arxiv.org/abs/1804.11188.

    Args:
        gru: its weights are changed; the draws are of torch's generator.
        length: the longest time to remember, in steps; with 2 or less every bias is 0.
    """
    with torch.no_grad():
        for name, bias in gru.named_parameters():
            # The gates are in the order reset, update, new; each has a bias of the input and one of the state.
            update = bias.view(3, gru.hidden_size)[1] if name.startswith("bias_") else bias
            if name.startswith("bias_ih"):
                update.uniform_(1, max(length - 1, 1)).log_()
            elif name.startswith("bias_hh"):
                update.zero_()
