"""What is in a file of sequences: a report before anything is trained."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from grulab.config.schema import Config
from grulab.data.datamodule import SequenceDataModule
from grulab.field_types import SPLITS
from grulab.report.evaluation_sections import baseline_table
from grulab.report.inspection_figure import draw_inspection
from grulab.report.sections import Section
from grulab.tasks.baselines import baselines
from grulab.tasks.files import Files
from grulab.training.build import build_module
from grulab.training.module import SequenceClassifier

_MOST_ROWS = 40
_SECONDS_OF_TIMING = 1.0
# The first steps allocate memory.
_WARM_UP = 3


def inspect(config: Config, task: Files, problems: Sequence[str], figure: Path) -> list[Section]:
    """Return what is in a file, and draw it.

    Args:
        config: a run over the file.
        task: its task.
        problems: what a run would refuse.
        figure: the path of the PNG file.
    """
    draw_inspection(task, figure)
    sections = [_overview(config, task), _classes(task), _features(task)]
    if problems:
        sections.append(Section("Problems", "A run is refused as long as these are there.", _lines(problems)))
    if task.notes:
        sections.append(Section("Notes", "A run goes on with these.", _lines(task.notes)))
    text = "Simple classifiers, which have learned from the training sequences. A GRU has to beat them."
    table = baseline_table((found.name, found.val, found.test) for found in baselines(task))
    sections.append(Section("Baselines", text, table))
    seconds, batches = epoch_seconds(config)
    text = (
        f"{seconds:.2g} seconds an epoch: {batches:,} batches of {config.data.batch_size} through the default model "
        f"({config.model.hidden_size} units, {config.model.num_layers} layer) on this machine's processor."
    )
    sections.append(Section("Time", text))
    return sections


def _overview(config: Config, task: Files) -> Section:
    flat, raw = task.flat, task.flat.lengths
    quantiles = np.percentile(raw, [0, 25, 50, 75, 100]).round().astype(int)
    shortest, longest = task.length_range
    rows = [
        ("sequences", f"{len(raw):,}: " + ", ".join(f"{task.size(split):,} {split}" for split in SPLITS)),
        ("splits", "made, as data.seed, data.val_fraction and data.test_fraction say" if (flat.splits < 0).any() else
         "of the file"),
        ("groups", "none" if flat.groups is None else f"{len(flat.group_names):,}, each in one split"),
        ("steps", f"{len(flat.values):,}; a sequence has {quantiles[0]} to {quantiles[4]}, half of them "
         f"{quantiles[1]} to {quantiles[3]}, median {quantiles[2]}"),
        ("after data.every and data.max_steps", f"{shortest} to {longest} steps"),
        ("features", f"{flat.values.shape[1]:,}, scaled by data.scale={config.data.scale}"),  # type: ignore[attr-defined]
        ("classes", f"{len(flat.class_names):,}"),
        ("content", task.content),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["what", "is"])
    return Section(task.name, "What grulab reads in this file.", table)


def _classes(task: Files) -> Section:
    counts = {split: task.class_counts(split) for split in SPLITS}
    total = np.sum(list(counts.values()), axis=0)
    table = pd.DataFrame({"class": task.class_names, "sequences": [f"{count:,}" for count in total]})
    table["share"] = [f"{count / total.sum():.1%}" for count in total]
    for split in SPLITS:
        table[split] = [f"{count:,}" for count in counts[split]]
    text = f"The {_MOST_ROWS} first of {len(table)} classes." if len(table) > _MOST_ROWS else "In natural order."
    return Section("Classes", text, table.head(_MOST_ROWS))


def _features(task: Files) -> Section:
    values, names = task.flat.values, task.flat.feature_names
    rows = []
    for column, name in enumerate(names[:_MOST_ROWS]):
        known = values[:, column][~np.isnan(values[:, column])]
        gaps = 1 - len(known) / len(values)
        row = {"feature": name, "missing": f"{gaps:.1%}" if gaps else ""}
        for title, function in (("lowest", np.min), ("mean", np.mean), ("highest", np.max), ("deviation", np.std)):
            row[title] = f"{function(known):.4g}" if len(known) else ""
        row["remark"] = "constant" if len(known) and known.min() == known.max() else ""
        rows.append(row)
    text = (
        f"The {_MOST_ROWS} first of {len(names):,}."
        if len(names) > _MOST_ROWS
        else "As the file has them, over all steps."
    )
    return Section("Features", text, pd.DataFrame(rows))


def _lines(lines: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"what": list(lines)})


def epoch_seconds(config: Config) -> tuple[float, int]:
    """Return the estimated time of a training epoch on the processor, in seconds, and the number of its batches."""
    torch.set_num_threads(config.trainer.threads)
    datamodule = SequenceDataModule(config.data, config.seed)
    module: SequenceClassifier = build_module(config, datamodule.task)
    optimizer = module.configure_optimizers()
    loader = datamodule.train_dataloader()
    began, done, first = time.perf_counter(), 0, 0
    for number, batch in enumerate(loader):
        if number == _WARM_UP:
            began, first = time.perf_counter(), number
        loss = module.training_step(batch, number)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done = number + 1
        if time.perf_counter() - began > _SECONDS_OF_TIMING:
            break
    return (time.perf_counter() - began) / (done - first) * len(loader), len(loader)
