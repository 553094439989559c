"""The kernels on several cores, and their arithmetic beside a matrix product and the peak of a core.

python -m experiments.throughput.threads [--repeats 30]

A training step (GRU, head, loss, gradients, Adam) in one call of C, on 1, 2, 4, ... cores in turn. All must compute
the same bits. The peak is that of multiply-adds which wait for nothing, in a C program that is compiled for it.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from experiments.throughput.step import in_c

from grulab.report.sections import Section, to_markdown
from grulab.system.cores import available_cores

HERE = Path(__file__).parent
FEATURES, CLASSES = 8, 4
# (steps, hidden size, batch, layers, directions, whether the lengths differ)
SHAPES = [
    (10, 8, 32, 1, 1, False),
    (10, 64, 32, 1, 1, False),
    (100, 64, 8, 1, 1, False),
    (100, 64, 32, 1, 1, False),
    (100, 64, 32, 1, 1, True),
    (100, 128, 64, 2, 2, False),
    (100, 128, 64, 2, 2, True),
    (100, 256, 32, 1, 1, False),
]
# Twelve sums that do not depend on each other keep both units busy for the time that a multiply-add takes.
_PEAK = """
#include <stdio.h>
#include <time.h>
typedef float V __attribute__((vector_size(4 * LANES)));
int main(void) {
    V a[12], x = {0}, y = {0};
    for (int i = 0; i < LANES; i++) x[i] = 0.999999f, y[i] = 1e-7f;
    for (int k = 0; k < 12; k++) a[k] = x;
    struct timespec s, e;
    double best = 0;
    for (int turn = 0; turn < 20; turn++) {
        clock_gettime(CLOCK_MONOTONIC, &s);
        for (long n = 0; n < 2000000; n++) {
#pragma GCC unroll 12
            for (int k = 0; k < 12; k++) a[k] = a[k] * x + y;
        }
        clock_gettime(CLOCK_MONOTONIC, &e);
        double rate = 2e6 * 12 * 2 * LANES / (e.tv_sec - s.tv_sec + 1e-9 * (e.tv_nsec - s.tv_nsec)) / 1e9;
        if (rate > best) best = rate;
    }
    float sum = 0;
    for (int k = 0; k < 12; k++) sum += a[k][0];
    printf("%.1f %g\\n", best, sum);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    counts = [count for count in (1, 2, 4, 8, 16) if count <= available_cores()]
    product, peak = _median(_product(), repeats), _peak()
    flops = 2 * 1024**3 / product / 1e9
    rows = [_measure(shape, counts, repeats) for shape in SHAPES]
    columns = ["steps", "units", "batch", "layers", "directions", "lengths", *(f"{count} (ms)" for count in counts)]
    columns += [*(f"{count} cores, times" for count in counts[1:]), "GFLOP/s of one core"]
    text = (
        f"`python -m experiments.throughput.threads`: medians of {repeats} in turn, with the lowest and the highest "
        "ratio of neighbours. The bits are the same for each number of cores. Lengths that differ are from half of "
        "the steps to all. Multiplications and additions of the matrix products only are counted. On the same core a "
        f"product of 1024 × 1024 matrices in torch makes {flops:.0f} GFLOP/s, and multiply-adds that wait for "
        f"nothing {peak:.0f}."
    )
    report = to_markdown(
        "A training step on several cores", [Section("Cores", text, pd.DataFrame(rows, columns=columns))]
    )
    (HERE / "threads.md").write_text(report, encoding="utf-8")
    print(report)


def _measure(shape: tuple[int, int, int, int, int, bool], counts: list[int], repeats: int) -> list[object]:
    steps, hidden, batch, layers, directions, differ = shape
    torch.manual_seed(0)
    lengths = torch.full((batch,), steps)
    if differ:
        lengths = torch.randint(steps // 2, steps + 1, (batch,)).sort(descending=True)[0]
        lengths[0] = steps
    data = torch.randn(batch, steps, FEATURES), lengths, torch.randint(0, CLASSES, (batch,))
    trainings = [in_c(hidden, layers, directions, FEATURES, CLASSES) for _ in counts]
    seconds: list[list[float]] = []
    for number in range(repeats + 3):
        turn, losses = [], []
        for count, training in zip(counts, trainings, strict=True):
            torch.set_num_threads(count)
            began = time.perf_counter()
            losses.append(training(*data))
            turn.append(time.perf_counter() - began)
        assert all(torch.equal(loss, losses[0]) for loss in losses)
        if number >= 3:
            seconds.append(turn)
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    ratios = [[turn[0] / turn[place] for turn in seconds] for place in range(1, len(counts))]
    words = [f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in ratios]
    rate = _operations(int(lengths.sum()), hidden, layers, directions) / medians[0] / 1e9
    shown = ["half to all" if differ else "all", *(f"{1000 * value:.2f}" for value in medians), *words, f"{rate:.0f}"]
    print(shape, *shown, flush=True)
    return [steps, hidden, batch, layers, directions, *shown]


def _operations(rows: int, hidden: int, layers: int, directions: int) -> float:
    """Return the additions and multiplications of the products, forward and backward."""
    total = 0.0
    for layer in range(layers):
        inputs = hidden * directions if layer else FEATURES
        forward, weights, states = inputs + hidden, inputs + hidden, hidden
        total += 2 * rows * 3 * hidden * directions * (forward + weights + states + (inputs if layer else 0))
    return total


def _product() -> Callable[[], object]:
    torch.set_num_threads(1)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: left @ right


def _median(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _peak() -> float:
    from grulab.kernels.fused import widest_lanes

    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "peak.c", Path(folder) / "peak"
        source.write_text(_PEAK)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        flags = ["-O2", "-march=native", "-ffp-contract=fast", f"-DLANES={widest_lanes()}"]
        subprocess.run([*compiler, *flags, "-o", str(program), str(source)], check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()[0])


if __name__ == "__main__":
    main()
