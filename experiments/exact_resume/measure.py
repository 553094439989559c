"""Kill and resume runs of many configurations, compare them, and write results.md. Takes some minutes.

Run from the top of the checkout: python -m experiments.exact_resume.measure [--accelerator cuda]
"""

import argparse
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pandas as pd
import torch
from experiments.exact_resume.harness import SMALL, random_moments, stop_and_compare

from grulab import compose
from grulab.report.sections import Section, to_markdown
from grulab.training.callbacks import checkpointing
from grulab.training.run import train

HERE = Path(__file__).parent
AXES = {
    "model.bidirectional": ("false", "true"),
    "model.num_layers": ("1", "2"),
    "model.dropout": ("0.0", "0.3"),
    "data.num_workers": ("0", "2"),
    "checkpoint.every_n_steps": ("null", "3"),
}


def kills(folder: Path, accelerator: str) -> Section:
    """Return, for each configuration, the number of stops and the differences from the uninterrupted run."""
    generator = random.Random(0)
    overrides = [*SMALL, f"trainer.accelerator={accelerator}"]
    rows = [
        [*values, stopped, "; ".join(found), "; ".join(map(str, moments))]
        for values, stopped, found, moments in stop_and_compare(
            folder, AXES, overrides, lambda: random_moments(generator, 6)
        )
    ]
    table = pd.DataFrame(rows, columns=[*AXES, "times stopped", "differences", "moments"])
    for loader in ("fast", "python"):
        table["differences"] += _loader_differences(folder, loader)
    table["differences"] = table["differences"].replace("", "none")
    total, different = table["times stopped"].sum(), (table["differences"] != "none").sum()
    text = (
        f"{len(table)} configurations, stopped {total} times in all, resumed until done, and compared with the same "
        "run left alone: weights, optimizer, random states, metrics.csv, TensorBoard (Python accumulator, web "
        f"server with its fast loader and with the Python loader), test metrics. **{different} differ.**"
    )
    return Section("Stopped at random moments", text, table)


def _loader_differences(folder: Path, loader: str) -> list[str]:
    """Return, for each pair of runs, the differences between their curves in TensorBoard's own server."""
    port = 6200 + random.SystemRandom().randrange(500)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    command += ["--load_fast", "true" if loader == "fast" else "false", "--samples_per_plugin", "scalars=0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        base = f"http://localhost:{port}/data/plugin/scalars"
        try:
            tags = _settled(f"{base}/tags", len(list(folder.glob("*/tensorboard"))))
            results = []
            for number in range(len(tags) // 2):
                one, other = (f"{number:02d}-{kind}/tensorboard" for kind in ("alone", "killed"))
                found = [] if tags[one].keys() == tags[other].keys() else [f"{loader}: tags"]
                for tag in tags[one].keys() & tags[other].keys():
                    curves = []
                    for run in (one, other):
                        query = urllib.parse.urlencode({"run": run, "tag": tag})
                        with urllib.request.urlopen(f"{base}/scalars?{query}") as answer:
                            curves.append([point[1:] for point in json.load(answer)])
                    if curves[0] != curves[1]:
                        found.append(f"{loader}: {tag}")
                results.append("; ".join(["", *found]))
            return results
        finally:
            server.terminate()


def _settled(url: str, runs: int) -> dict[str, dict[str, object]]:
    """Return the server's tags once it has read every run and two answers in a row agree."""
    before: dict[str, dict[str, object]] = {}
    for _ in range(60):
        time.sleep(2)
        try:
            with urllib.request.urlopen(url) as answer:
                tags = json.load(answer)
        except OSError:
            continue
        if len(tags) == runs and tags == before:
            return dict(tags)
        before = tags
    raise RuntimeError(f"TensorBoard shows {len(before)} of {runs} runs")


def costs(folder: Path, accelerator: str) -> Section:
    """Return the times of writing a checkpoint and of starting a resumed run."""
    config = compose([f"trainer.accelerator={accelerator}", "model.hidden_size=64"])
    writes: list[float] = []
    original = checkpointing.Checkpointer._write

    def timed(*args: object) -> None:
        began = time.perf_counter()
        # The arguments are handed through as they came.
        original(*args)  # type: ignore[arg-type]
        writes.append(1000 * (time.perf_counter() - began))

    # Replaced while these runs are timed; mypy rejects assigning to a method.
    checkpointing.Checkpointer._write = timed  # type: ignore[method-assign,assignment]
    for repeat in range(5):
        train(config, folder / f"write-{repeat}")
    checkpointing.Checkpointer._write = original  # type: ignore[method-assign]

    arguments = [f"trainer.accelerator={accelerator}", "model.hidden_size=64"]
    finished = folder / "finished"
    train(compose(arguments), finished)
    seconds: dict[str, list[float]] = {"fresh": [], "resumed": []}
    for repeat in range(7):
        seconds["fresh"].append(_seconds_to_first_step("train", *arguments, f"hydra.run.dir={folder / str(repeat)}"))
        seconds["resumed"].append(_seconds_to_first_step("resume", str(finished), f"trainer.max_epochs={6 + repeat}"))
    fresh, resumed = (statistics.median(values) for values in seconds.values())
    milliseconds = {kind: [1000 * value for value in values] for kind, values in seconds.items()}
    rows = [
        ["a checkpoint written, hidden size 64", f"{statistics.median(writes):.1f} ms", _range(writes)],
        *(
            [f"command to first step, {k}", f"{statistics.median(v):.0f} ms", _range(v)]
            for k, v in milliseconds.items()
        ),
        ["resumed / fresh", f"{resumed / fresh:.2f}", ""],
    ]
    return Section("What it costs", "", pd.DataFrame(rows, columns=["what", "median", "range"]))


# The grulab program, which exits at its first training step.
_TO_FIRST_STEP = """
import os, sys
from grulab.training.module import SequenceClassifier
SequenceClassifier.training_step = lambda *_: os._exit(7)
from grulab.cli import main
main(sys.argv[1:])
"""


def _seconds_to_first_step(*command: str) -> float:
    began = time.perf_counter()
    code = subprocess.run([sys.executable, "-c", _TO_FIRST_STEP, *command], check=False).returncode
    assert code == 7, command
    return time.perf_counter() - began


def _range(milliseconds: list[float]) -> str:
    return f"{min(milliseconds):.1f} to {max(milliseconds):.1f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "kills").mkdir()
        (Path(temporary) / "costs").mkdir()
        sections = [
            kills(Path(temporary) / "kills", options.accelerator),
            costs(Path(temporary) / "costs", options.accelerator),
        ]
    report = to_markdown(f"Exact resume: results on {options.accelerator}", sections)
    name = "results.md" if options.accelerator == "cpu" else f"results-{options.accelerator}.md"
    (HERE / name).write_text(report, encoding="utf-8")
    print(report)
