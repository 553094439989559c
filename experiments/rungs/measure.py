"""Do sweeps with rungs find what the full grid finds, and at what share of its epochs?

    python -m experiments.rungs.measure [--repetitions 10] [--folder FOLDER]

It trains full grids of 27 configurations with 3 seeds to the last rung, and replays the promotions over their
metrics.csv: a run that is promoted has the bits of one that was never stopped, so the epochs that it would have had
are those of the full grid. It writes results.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from grulab.run_folder.metrics_csv import read_column
from grulab.sweep import manifest
from grulab.sweep.comparison import Comparison
from grulab.sweep.job import Job
from grulab.sweep.rungs import at_first_rung, configurations, promoted

RESULTS = Path(__file__).with_name("results.md")
RUNGS, KEEP = [3, 9, 18], 0.33
SWEPT = ["model.hidden_size=8,16,32", "model.num_layers=1,2,3", "optimizer.lr=0.005,0.01,0.02"]
TASKS = {
    "sinusoids": ["data=sinusoids"],
    "temporal_order": ["data=temporal_order", "data.level=easy", "data.train_size=2000"],
}
WAYS = {"the best third of each learning rate": ["optimizer.lr"], "the best third of all": []}
GRULAB = "import sys; from grulab.cli import main; sys.exit(main())"


def full_grid(folder: Path, task: str, repetition: int) -> list[Job]:
    """Train a full grid with seeds of its own; return its jobs."""
    seeds = ",".join(str(3 * repetition + seed) for seed in range(3))
    words = ["train", "-m", *TASKS[task], *SWEPT, f"seed={seeds}", f"trainer.max_epochs={RUNGS[-1]}"]
    command = [sys.executable, "-c", GRULAB, *words, f"hydra.sweep.dir={folder}", "trainer.accelerator=cpu"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    known = manifest.read(folder)
    assert known is not None
    return known.jobs


def replay(jobs: Sequence[Job], curves: dict[int, list[float]], tune: Sequence[str]) -> list[Job]:
    """Return the jobs at the rungs at which a sweep would have left them."""
    current: list[Job] | None = [replace(job, config=at_first_rung(job.config, RUNGS)) for job in jobs]
    while current is not None:
        last = current
        current = promoted(last, lambda job, epochs: max(curves[job.number][:epochs]), RUNGS, KEEP, tune)
    return last


def is_as_good(jobs: Sequence[Job], curves: dict[int, list[float]], left: Sequence[Job]) -> tuple[bool, bool]:
    """Return whether the first of those that were trained to the end is the full grid's, and whether it is as good.

    It is as good if the full grid does not tell the two apart.
    """
    groups = list(configurations(jobs, is_of_rungs=True).values())
    scores = [[max(curves[job.number]) for job in group] for group in groups]
    compared = Comparison.of(scores)
    ended = {job.number for job in left if job.config.trainer.max_epochs == RUNGS[-1]}
    candidates = [place for place, group in enumerate(groups) if group[0].number in ended]
    found = max(candidates, key=lambda place: compared.means[place])
    return found == compared.best, found == compared.best or not compared.is_real(compared.best, found)


def main() -> None:
    """Train, replay, and write results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the sweeps are kept; default: nowhere")
    options = parser.parse_args()
    began = time.monotonic()
    found: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for task in TASKS:
            for repetition in range(options.repetitions):
                folder = (options.folder or Path(temporary)).absolute() / f"{task}-{repetition}"
                jobs = full_grid(folder, task, repetition)
                monitor = jobs[0].config.checkpoint.monitor
                curves = {job.number: read_column(folder / job.folder, monitor) for job in jobs}
                for way, tune in WAYS.items():
                    left = replay(jobs, curves, tune)
                    epochs = sum(job.config.trainer.max_epochs for job in left) / (len(jobs) * RUNGS[-1])
                    same, good = is_as_good(jobs, curves, left)
                    found.setdefault((task, way), []).append((same, good, epochs))
                    print(task, repetition, way, same, good, f"{epochs:.0%}", flush=True)
    took = time.monotonic() - began
    lines = [
        "# Rungs",
        "",
        f"`python -m experiments.rungs.measure --repetitions {options.repetitions}`, {took:.0f} s; "
        f"{' '.join(SWEPT)}, 3 seeds, `hydra.sweeper.rungs={RUNGS} hydra.sweeper.keep={KEEP}`.",
        "",
        "| task | what goes on | epochs of the full grid | its winner found | or one that it does not tell from it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (task, way), results in found.items():
        table = np.array(results, dtype=np.float64)
        winners, equals = int(table[:, 0].sum()), int(table[:, 1].sum())
        lines.append(
            f"| {task} | {way} | {table[:, 2].mean():.0%} | {winners} of {len(table)} | {equals} of {len(table)} |"
        )
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
