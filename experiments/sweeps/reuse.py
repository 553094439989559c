"""Jobs that share a process against the same runs made alone: random configurations, with failures among them.

python -m experiments.sweeps.reuse [--jobs 200]
"""

import argparse
import json
import logging
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
from experiments.exact_resume.harness import differences, table_of
from experiments.sweeps.harness import Sweep, processes_of

from grulab.config.compose import compose
from grulab.config.schema import Config
from grulab.report.sections import Section, to_markdown
from grulab.sweep.worker import prepare_to_fork
from grulab.system.child import in_child
from grulab.training.run import train

HERE = Path(__file__).parent
SIZES = ["data.train_size=90", "data.val_size=40", "data.test_size=50", "trainer.max_epochs=3"]
# A learning rate with which the first loss after a step is not finite.
_TOO_LARGE = "2e37"
# The values of each key; most jobs have the first one of those with an effect on the whole process.
CHOICES: dict[str, list[str]] = {
    "seed": [str(seed) for seed in range(1000)],
    "data.batch_size": ["32", "16", "7"],
    "data.num_workers": ["0"] * 9 + ["1"],
    "model.backend": ["auto"] * 3 + ["torch"],
    "model.bidirectional": ["false", "true"],
    "model.dropout": ["0.0", "0.3"],
    "model.hidden_size": ["3", "8", "20", "33"],
    "model.num_layers": ["1", "2", "3"],
    "optimizer.algorithm": ["adam", "adamw"],
    "optimizer.lr": ["0.01"] * 11 + [_TOO_LARGE],
    "optimizer.schedule": ["constant", "cosine"],
    "trainer.deterministic": ["true"] * 3 + ["false"],
    "trainer.gradient_clip_val": ["null", "0.5"],
    "trainer.loop": ["fast"] * 3 + ["lightning"],
    "trainer.precision": ["32-true"] * 6 + ["64-true", "bf16-mixed"],
    "trainer.threads": ["1"] * 5 + ["2"],
}
TASKS = {"sinusoids": [], "temporal_order": ["data.level=easy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    jobs = parser.parse_args().jobs // len(TASKS)
    generator = random.Random(0)
    logging.disable(logging.CRITICAL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for task, own in TASKS.items():
            values = [{key: generator.choice(choices) for key, choices in CHOICES.items()} for _ in range(jobs)]
            root = Path(folder) / task
            root.mkdir()
            rows.append([task, *compare(root, [f"data={task}", *own, *SIZES], values)])
    table = pd.DataFrame(rows, columns=["task", "jobs", "failed", "processes", "different", "seconds"])
    text = (
        f"`python -m experiments.sweeps.reuse`: random values of {len(CHOICES)} keys, two slots; one learning rate "
        f"in twelve is {_TOO_LARGE}, which fails. Each job is compared with the same run in a process of its own: "
        "both checkpoints, metrics.csv, TensorBoard's curves and summary.json, or the error and the rows before it."
    )
    report = to_markdown(
        "Jobs that share a process", [Section("Jobs and runs alone", text, table.round({"seconds": 0}))]
    )
    (HERE / "reuse.md").write_text(report, encoding="utf-8")
    print(report)


def compare(root: Path, fixed: list[str], values: list[dict[str, str]]) -> tuple[int, int, int, int, float]:
    """Run a sweep and its runs alone; return how many jobs, failures, processes, differences and seconds."""
    began = time.perf_counter()
    axes = [f"{key}={','.join(row[key] for row in values)}" for key in CHOICES]
    words = ["train", "-m", *fixed, *axes, f"hydra.sweeper.zip=[{','.join(CHOICES)}]", "hydra.sweep.dir=sweep"]
    sweep = Sweep([*words, "hydra.launcher.cores=2", "trainer.accelerator=cpu"], root, root / "log")
    assert sweep.process.wait() in (0, 1), (root / "log").read_text()[-2000:]
    seconds = time.perf_counter() - began
    folders = sorted(path.parent for path in (root / "sweep").glob("*/summary.json"))
    assert len(folders) == len(values), (root / "log").read_text()[-2000:]
    configs = [
        compose([*fixed, "trainer.accelerator=cpu", *(f"{key}={value}" for key, value in row.items())])
        for row in values
    ]
    prepare_to_fork(configs[:1])
    different = failed = 0
    for number, (folder, config) in enumerate(zip(folders, configs, strict=True)):
        alone = root / "alone" / str(number)
        in_child(run_alone, config, alone)
        failed += json.loads((folder / "summary.json").read_text())["status"] == "failed"
        if not is_same(alone, folder):
            different += 1
            print(f"different: {folder.name} {values[number]}", flush=True)
    return len(folders), failed, len(set(processes_of(root / "sweep"))), different, seconds


def run_alone(config: Config, folder: Path) -> None:
    """Train a run; a failure is in its summary."""
    with suppress(Exception):
        train(config, folder)


def is_same(alone: Path, in_sweep: Path) -> bool:
    """Return whether two runs have computed the same, or failed at the same epoch with the same error."""
    one, other = (json.loads((run / "summary.json").read_text()) for run in (alone, in_sweep))
    if one["status"] == other["status"] == "done":
        return not differences(alone, in_sweep)
    ends = [(run["status"], run["error"]["message"]) for run in (one, other)]
    return ends[0] == ends[1] and table_of(alone) == table_of(in_sweep)


if __name__ == "__main__":
    main()
