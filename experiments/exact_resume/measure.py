"""Kill runs of many configurations, resume them, compare; write results.md beside this file. Takes some minutes.

Run from the top of the checkout: python -m experiments.exact_resume.measure [--accelerator cuda]
"""

import argparse
import itertools
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
from experiments.exact_resume.harness import SMALL, differences, random_moments, run_until_done
from tqdm import tqdm

from grulab import compose
from grulab.report.sections import Section, to_markdown
from grulab.run import execute, train
from grulab.tracking import checkpoints

HERE = Path(__file__).parent
AXES = {
    "model.bidirectional": ("false", "true"),
    "model.num_layers": ("1", "2"),
    "model.dropout": ("0.0", "0.3"),
    "data.num_workers": ("0", "2"),
    "checkpoint.every_n_steps": ("null", "3"),
}


def kills(folder: Path, accelerator: str) -> Section:
    """Return, for each configuration, how often it was killed and what differed in the end."""
    generator = random.Random(0)
    rows = []
    for number, values in enumerate(tqdm(list(itertools.product(*AXES.values())))):
        settings = [f"{key}={value}" for key, value in zip(AXES, values, strict=True)]
        overrides = [*SMALL, f"trainer.accelerator={accelerator}", *settings]
        alone, killed = folder / f"{number:02d}-alone", folder / f"{number:02d}-killed"
        run_until_done(overrides, alone, [])
        moments = random_moments(generator, 6)
        stopped = run_until_done(overrides, killed, moments)
        found = differences(alone, killed)
        rows.append([*values, stopped, "; ".join(found) or "none", "; ".join(map(str, moments))])
    for loader in ("fast", "python"):
        for number, found in enumerate(_loader_differences(folder, loader)):
            rows[number][-2] = "; ".join(filter(None, [rows[number][-2].replace("none", ""), found])) or "none"
    table = pd.DataFrame(rows, columns=[*AXES, "times stopped", "differences", "moments"])
    total, different = table["times stopped"].sum(), (table["differences"] != "none").sum()
    text = (
        f"{len(table)} configurations, stopped {total} times in all, resumed until done, and compared with the same run "
        "left alone: weights, optimizer, random states, metrics.csv, TensorBoard (its Python accumulator, its web "
        f"server with the fast loader and with the Python loader), test metrics. **{different} differ.**"
    )
    return Section("Stopped at random moments", text, table)


def _loader_differences(folder: Path, loader: str) -> list[str]:
    """Return what TensorBoard's own server shows differently for each pair of runs."""
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
                results.append("; ".join(found))
            return results
        finally:
            server.terminate()


def _settled(url: str, runs: int) -> dict[str, dict[str, object]]:
    """Return the server's answer when it has read every run and nothing more comes."""
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
    """Return what a checkpoint and a resumed start cost."""
    config = compose([f"trainer.accelerator={accelerator}", "model.hidden_size=64"])
    writes: list[float] = []
    original = checkpoints.RunCheckpoints._write

    def timed(*args: object) -> None:
        began = time.perf_counter()
        original(*args)  # type: ignore[arg-type]
        writes.append(1000 * (time.perf_counter() - began))

    checkpoints.RunCheckpoints._write = timed  # type: ignore[method-assign]
    for repeat in range(5):
        train(config, folder / f"write-{repeat}")
    checkpoints.RunCheckpoints._write = original  # type: ignore[method-assign]

    first_step: dict[str, list[float]] = {"fresh": [], "resumed": []}
    longer = compose([f"trainer.accelerator={accelerator}", "model.hidden_size=64", "trainer.max_epochs=6"])
    for repeat in range(9):
        for kind in first_step:
            run_dir = folder / f"start-{kind}-{repeat}"
            last = None
            if kind == "resumed":
                train(config, run_dir)
                last = run_dir / "checkpoints" / "last.ckpt"
            run_dir.mkdir(exist_ok=True)
            began = time.perf_counter()
            first_step[kind].append(_seconds_to_first_step(longer, run_dir, accelerator, last, began))
    fresh, resumed = (statistics.median(values) for values in first_step.values())
    table = pd.DataFrame(
        [
            ["a checkpoint written, hidden size 64", f"{statistics.median(writes):.1f} ms", _range(writes, "ms")],
            ["to the first step, fresh", f"{1000 * fresh:.0f} ms", _range([1000 * v for v in first_step["fresh"]], "ms")],
            ["to the first step, resumed", f"{1000 * resumed:.0f} ms", _range([1000 * v for v in first_step["resumed"]], "ms")],
            ["resumed / fresh", f"{resumed / fresh:.2f}", ""],
        ],
        columns=["what", "median", "range"],
    )  # fmt: skip
    text = "In one process that has imported torch; the imports, seconds, are the same for both starts."
    return Section("What it costs", text, table)


class _FirstStepError(Exception):
    """The first step was reached."""


def _seconds_to_first_step(config: object, run_dir: Path, accelerator: str, last: Path | None, began: float) -> float:
    from grulab.models.classifier import SequenceClassifier

    original = SequenceClassifier.training_step

    def reached(*_: object) -> torch.Tensor:
        raise _FirstStepError

    SequenceClassifier.training_step = reached  # type: ignore[assignment]
    try:
        execute(config, run_dir, accelerator, last)  # type: ignore[arg-type]
    except _FirstStepError:
        return time.perf_counter() - began
    finally:
        SequenceClassifier.training_step = original  # type: ignore[method-assign]
    raise AssertionError("a run without a step")


def _range(values: list[float], unit: str) -> str:
    return f"{min(values):.1f} to {max(values):.1f} {unit}"


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
