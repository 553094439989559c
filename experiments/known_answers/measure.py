"""Measure the accuracy of default runs, and write results.md beside this file. Takes two minutes.

Run: python experiments/known_answers/measure.py
"""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from grulab import compose, train
from grulab.report.sections import Section, to_markdown

SEEDS = range(5)
HERE = Path(__file__).parent


def summaries(*overrides: str) -> list[dict[Any, Any]]:
    """Train once for each seed in a temporary folder; return the summaries with the last epoch's row."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            run_dir = Path(folder) / str(seed)
            summary = train(compose([f"seed={seed}", "trainer.accelerator=cpu", *overrides]), run_dir)
            results.append(summary | pd.read_csv(run_dir / "metrics.csv").iloc[-1].to_dict())
    return results


def seed_example() -> Section:
    """Return validation loss and accuracy of the default run after five epochs."""
    rows = summaries()
    table = pd.DataFrame(rows, index=[str(seed) for seed in SEEDS])[["val/loss", "val/accuracy"]]
    table.loc["mean"] = table.mean()
    table = table.map("{:.3f}".format).reset_index(names="seed")
    return Section("The default run after five epochs", "`grulab train seed=0` ... `seed=4`", table)


def temporal_order() -> Section:
    """Return the test accuracy of the default model on task 6a against the number of sequences, each seen once."""
    table = []
    for size in (2500, 5000, 7500, 10_000):
        rows = summaries("data=temporal_order", "trainer.max_epochs=1", f"data.train_size={size}")
        accuracies = [row["metrics"]["test/accuracy"] for row in rows]
        solved = sum(accuracy >= 0.99 for accuracy in accuracies)
        table.append([size, *(f"{accuracy:.3f}" for accuracy in accuracies), f"{solved} of {len(rows)}"])
    columns = ["sequences", *(f"seed {seed}" for seed in SEEDS), "at 0.99 or more"]
    command = "`grulab train data=temporal_order trainer.max_epochs=1 data.train_size=<sequences> seed=<seed>`"
    return Section("Temporal order, 6a, level normal: test accuracy", command, pd.DataFrame(table, columns=columns))


def hidden_markov() -> Section:
    """Return the test accuracy on hidden_markov of 16 units against the number of sequences, each seen once."""
    table = []
    for size in (16_000, 32_000, 64_000, 128_000):
        overrides = ["trainer.max_epochs=1", "model.hidden_size=16", "optimizer.lr=0.01", "data.test_size=10000"]
        rows = summaries("data=hidden_markov", f"data.train_size={size}", *overrides)
        accuracies = [row["metrics"]["test/accuracy"] for row in rows]
        table.append([size, *(f"{accuracy:.3f}" for accuracy in accuracies), f"{rows[0]['ceiling']:.3f}"])
    columns = ["sequences", *(f"seed {seed}" for seed in SEEDS), "ceiling"]
    command = (
        "`grulab train data=hidden_markov trainer.max_epochs=1 model.hidden_size=16 optimizer.lr=0.01 "
        "data.test_size=10000 data.train_size=<sequences> seed=<seed>`"
    )
    return Section("hidden_markov, 16 units: test accuracy", command, pd.DataFrame(table, columns=columns))


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = to_markdown("Known answers: results", [seed_example(), temporal_order(), hidden_markov()])
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)
