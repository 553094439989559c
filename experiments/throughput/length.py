"""Cost against the length of the sequences, and the memory for very long ones.

`python -m experiments.throughput.measure --only length` measures the time; this module reports it. Memory:

    python -m experiments.throughput.length

prints the peak memory of a process, in MiB, before and after training on 8 sequences of 100,000 steps with 64 units.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from experiments.throughput import pictures
from experiments.throughput.step import in_c

from grulab.report.sections import Section, to_markdown

HERE = Path(__file__).parent
STEPS = [100, 300, 1000, 3000, 10_000]
UNITS, BATCH, _BATCHES = 64, 32, 4
# Packed nn.GRU on the CPU is quadratic in the length: an epoch of 10,000 steps would take half an hour.
_LONGEST_OF_TORCH = 1000
_VERY_LONG = 100_000


def overrides(steps: int) -> list[str]:
    """Return the run with sequences of so many steps."""
    sizes = [f"data.train_size={_BATCHES * BATCH}", "data.val_size=32", "data.test_size=32"]
    lengths = [f"data.min_length={steps}", f"data.max_length={steps}"]
    return [*sizes, *lengths, f"data.batch_size={BATCH}", f"model.hidden_size={UNITS}", "trainer.max_epochs=4"]


def contenders(steps: int) -> Sequence[str]:
    """Return who can train on sequences of so many steps in reasonable time."""
    return ["grulab", "bare loop, nn.GRU"] if steps <= _LONGEST_OF_TORCH else ["grulab"]


def report(table: pd.DataFrame) -> None:
    """Write length.md and its figure; ``table`` is the result of :func:`measure.measure_runs`."""
    table = table.assign(steps=table["shape"].astype(int))
    table["microseconds"] = 1e6 * table["epoch"] / _BATCHES / table["steps"]
    medians = table.pivot_table(
        index="steps", columns="contender", values="microseconds", aggfunc="median", sort=False
    )
    pictures.draw_length(medians, HERE / "figures" / "length.png")
    ours = medians["grulab"]
    cells = medians.map(lambda value: "" if pd.isna(value) else f"{value:.1f}").reset_index()
    memory = json.loads(
        subprocess.run(
            [sys.executable, "-m", "experiments.throughput.length"], capture_output=True, text=True, check=True
        ).stdout
    )
    text = (
        f"Microseconds per step of a batch, all of a training epoch ({_BATCHES} batches of {BATCH} sequences, "
        f"{UNITS} units, one core; the first epoch left out). From "
        f"{STEPS[0]} to {STEPS[-1]:,} steps grulab takes {ours.min():.1f} to {ours.max():.1f} µs. nn.GRU over packed "
        f"sequences is quadratic in the length on a CPU, and was not tried beyond {_LONGEST_OF_TORCH} steps.\n\n"
        "![Microseconds per step against the length](figures/length.png)"
    )
    kept = (
        f"Training steps on 8 sequences of {_VERY_LONG:,} steps with {UNITS} units took the process from "
        f"{memory['before']:.0f} to {memory['after']:.0f} MiB (`python -m experiments.throughput.length`). The "
        "outputs are kept for the backward pass; gates of more than 512 MiB are computed again, which took "
        f"{memory['microseconds'] / memory['kept']:.2f} times as long as a batch of 10,000 steps, per step."
    )
    sections = [Section("Time", text, cells), Section("Memory", kept)]
    path = HERE / "length.md"
    path.write_text(to_markdown("Cost against the length", sections), encoding="utf-8")
    print(path.read_text())


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, steps in (("kept", 10_000), ("microseconds", _VERY_LONG)):
        training = in_c(UNITS, 1, 1)
        x, lengths, y = torch.randn(8, steps, 5), torch.full((8,), steps), torch.zeros(8, dtype=torch.int64)
        found["before"] = _peak()
        seconds = []
        for _ in range(3):
            began = perf_counter()
            training(x, lengths, y)
            seconds.append(perf_counter() - began)
        found[name] = 1e6 * sorted(seconds)[1] / steps
    print(json.dumps({**found, "after": _peak()}))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
