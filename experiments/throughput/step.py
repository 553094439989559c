"""A training step in one call of C against autograd with the same kernels, and with nn.GRU.

python -m experiments.throughput.step
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from grulab.kernels.fused import FusedGRU
from grulab.kernels.step import TrainingStep
from grulab.training.optimizer import make_optimizer

# (steps, hidden size, layers, directions)
SHAPES = [(10, 8, 1, 1), (10, 32, 2, 2), (30, 32, 1, 1), (100, 64, 1, 1), (100, 128, 2, 2)]
_BATCH, _FEATURES, _CLASSES = 32, 5, 3
_TIMES, _WARM_UP = 100, 10

Batch = tuple[Tensor, Tensor, Tensor]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for steps, hidden, layers, directions in SHAPES:
        seconds = [_median(make, steps, hidden, layers, directions) for make in (_in_c, _fused, _plain)]
        rows.append(
            f"| {steps} | {hidden} | {layers} | {directions} | {1e6 * seconds[0]:.0f} | "
            f"{seconds[1] / seconds[0]:.1f} | {seconds[2] / seconds[0]:.1f} |"
        )
    lines = [
        "# A training step: GRU, head, loss, gradients and Adam",
        "",
        f"`python -m experiments.throughput.step`: {_BATCH} sequences of 1 to so many steps, {_FEATURES} features, "
        f"one thread; medians of {_TIMES}. The batch is in memory.",
        "",
        "| steps | hidden size | layers | directions | in C, µs | autograd with the kernels, times | autograd with "
        "nn.GRU, times |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    Path(__file__).with_name("step.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _median(make: Callable[..., Callable[[Batch], object]], steps: int, *shape: int) -> float:
    step, batch = make(*shape), _batch(steps)
    seconds = []
    for number in range(_WARM_UP + _TIMES):
        began = time.perf_counter()
        step(batch)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _batch(steps: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, steps + 1, (_BATCH,), generator=generator).sort(descending=True)[0]
    x = torch.randn(_BATCH, int(lengths[0]), _FEATURES, generator=generator)
    return x, lengths, torch.randint(0, _CLASSES, (_BATCH,), generator=generator)


def _parts(
    kind: type[nn.GRU], hidden: int, layers: int, directions: int, features: int = _FEATURES, classes: int = _CLASSES
) -> tuple[nn.GRU, nn.Linear]:
    torch.manual_seed(0)
    gru = kind(features, hidden, layers, batch_first=True, bidirectional=directions == 2)
    return gru, nn.Linear(hidden * directions, classes)


def in_c(
    hidden: int, layers: int, directions: int, features: int = _FEATURES, classes: int = _CLASSES
) -> TrainingStep:
    """Return the training step of a new model."""
    gru, head = _parts(FusedGRU, hidden, layers, directions, features, classes)
    assert isinstance(gru, FusedGRU)
    optimizer = make_optimizer([*gru.parameters(), *head.parameters()], "adam", 0.001, 0.0, fused=True)
    return TrainingStep(gru, head, optimizer, None, None)


def _in_c(hidden: int, layers: int, directions: int) -> Callable[[Batch], object]:
    step = in_c(hidden, layers, directions)
    return lambda batch: step(*batch)


def _fused(hidden: int, layers: int, directions: int) -> Callable[[Batch], object]:
    return _by_autograd(*_parts(FusedGRU, hidden, layers, directions))


def _plain(hidden: int, layers: int, directions: int) -> Callable[[Batch], object]:
    return _by_autograd(*_parts(nn.GRU, hidden, layers, directions))


def _by_autograd(gru: nn.GRU, head: nn.Linear) -> Callable[[Batch], object]:
    optimizer = make_optimizer([*gru.parameters(), *head.parameters()], "adam", 0.001, 0.0, fused=True)

    def step(batch: Batch) -> None:
        x, lengths, y = batch
        _, h_n = gru(pack_padded_sequence(x, lengths, batch_first=True))
        last = torch.cat((h_n[-2], h_n[-1]), dim=1) if gru.bidirectional else h_n[-1]
        loss = nn.functional.cross_entropy(head(last), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
