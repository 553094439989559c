"""The fused kernels against packed ``nn.GRU``, forward and backward together, in one thread."""

import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from grulab.kernels.fused import FusedGRU

FEATURES = 5
# (steps, hidden_size, batch, num_layers, bidirectional)
Shape = tuple[int, int, int, int, bool]
SHAPES: list[Shape] = [
    (10, 8, 32, 1, False),
    (10, 32, 32, 2, True),
    (100, 64, 32, 1, False),
    (100, 128, 64, 1, False),
    (100, 128, 64, 2, True),
    (100, 256, 64, 1, False),
]
SIZES: list[Shape] = [
    (20, size, 32, 1, False) for size in (1, 2, 3, 5, 8, 13, 16, 24, 32, 48, 64, 100, 128, 200, 256, 384, 512)
]
# Long enough that the clock's resolution and the first calls do not matter.
_SECONDS_OF_A_TURN = 0.2


def measure(shapes: list[Shape], repeats: int) -> pd.DataFrame:
    """Time nn.GRU and FusedGRU alternately.

    Returns:
        A row for each shape: ``steps``, ``hidden_size``, ``batch``, ``num_layers``, ``bidirectional``; the medians
        ``torch`` and ``fused`` in milliseconds; ``ratio``, ``lowest`` and ``highest``, the median, minimum and
        maximum of the ratios of neighbouring turns.
    """
    torch.set_num_threads(1)
    rows = []
    for shape in shapes:
        steps, hidden_size, batch, num_layers, bidirectional = shape
        torch.manual_seed(0)
        x = torch.randn(batch, steps, FEATURES)
        # Lengths vary as in a training set, longest first.
        lengths = torch.linspace(steps, (steps + 1) // 2, batch).long()
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        turns = [
            _turn(kind(FEATURES, hidden_size, num_layers, bidirectional=bidirectional), packed)
            for kind in (nn.GRU, FusedGRU)
        ]
        pairs = [(turns[0](), turns[1]()) for _ in range(repeats)]
        ratios = [plain / fused for plain, fused in pairs]
        medians = [1000 * statistics.median(times) for times in zip(*pairs, strict=True)]
        rows.append((*shape, *medians, statistics.median(ratios), min(ratios), max(ratios)))
        print(f"{shape}  {medians[0]:.3f} ms, {medians[1]:.3f} ms  {rows[-1][-3]:.2f} times", flush=True)
    columns = ["steps", "hidden_size", "batch", "num_layers", "bidirectional", "torch", "fused"]
    return pd.DataFrame(rows, columns=[*columns, "ratio", "lowest", "highest"])


def _turn(gru: nn.GRU, packed: PackedSequence) -> Callable[[], float]:
    """Return a function that runs a turn of many steps and returns the mean seconds of a step."""

    def step() -> None:
        gru.zero_grad()
        gru(packed)[1].sum().backward()

    began = time.perf_counter()
    for _ in range(3):
        step()
    count = max(2, int(_SECONDS_OF_A_TURN / (time.perf_counter() - began) * 3))

    def turn() -> float:
        began = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - began) / count

    return turn
