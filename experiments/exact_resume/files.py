"""Kill and resume runs over a CSV file, compare them, and write results-files.md. Takes some minutes.

Run from the top of the checkout: python -m experiments.exact_resume.files
"""

import logging
import random
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments.exact_resume.harness import Moment, random_moments, stop_and_compare

from grulab.report.sections import Section, to_markdown

HERE = Path(__file__).parent
AXES = {
    "data.scale": ("standard", "robust"),
    "data.num_workers": ("0", "2"),
    "checkpoint.every_n_steps": ("null", "3"),
}
# As in the other study, six epochs of seven batches, the last of them a single sequence.
SMALL = ["data.batch_size=16", "data.missing=fill", "data.missing_indicator=true", "trainer.max_epochs=6"]
COUNTS = {"train": 97, "val": 40, "test": 40}
MOMENTS = 5


def write_file(path: Path) -> None:
    """Write a long table of sequences of 1 to 20 steps with gaps, in two classes that differ in their mean."""
    rng = np.random.default_rng(0)
    frames = []
    for split, count in COUNTS.items():
        for number in range(count):
            values = rng.normal(size=(rng.integers(1, 21), 3)) + number % 2
            values[rng.random(values.shape) < 0.05] = np.nan
            frame = pd.DataFrame(values, columns=["x", "y", "z"])
            frames.append(
                frame.assign(
                    id=f"{split}{number}", time=np.arange(len(frame)), label=f"class{number % 2}", split=split
                )
            )
    pd.concat(frames).to_csv(path, index=False)


def kills(folder: Path) -> Section:
    """Return, for each configuration, the number of kills and the differences from the uninterrupted run."""
    path = folder / "sequences.csv"
    write_file(path)
    generator = random.Random(1)
    overrides = ["data=files", f"data.path={path}", "trainer.accelerator=cpu", *SMALL]

    def draw() -> list[Moment]:
        return [replace(moment, signum=signal.SIGKILL) for moment in random_moments(generator, MOMENTS)]

    rows = [
        [*values, stopped, "; ".join(found) or "none", "; ".join(map(str, moments))]
        for values, stopped, found, moments in stop_and_compare(folder, AXES, overrides, draw)
    ]
    table = pd.DataFrame(rows, columns=[*AXES, "times killed", "differences", "moments"])
    total, different = table["times killed"].sum(), (table["differences"] != "none").sum()
    text = (
        f"{len(table)} configurations of `data=files` over a CSV file with gaps, killed {total} times in all by "
        "`kill -9`, resumed until done, and compared with the same run left alone: weights, optimizer, random "
        f"states, metrics.csv, TensorBoard, test metrics. **{different} differ.**"
    )
    return Section("Killed at random moments, over a file", text, table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        section = kills(Path(temporary))
    report = to_markdown("Exact resume over files: results on cpu", [section])
    (HERE / "results-files.md").write_text(report, encoding="utf-8")
    print(report)
