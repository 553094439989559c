"""The figure of an inspection, drawn without pyplot, which would keep it in memory and need a display."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from grulab.field_types import SPLITS
from grulab.run_folder.full_disk import explained_full_disk
from grulab.system.atomic import write_atomically
from grulab.system.regular_file import refuse_odd_kinds
from grulab.tasks.files import Files

_MOST_CLASSES = 30
_MOST_FEATURES = 8
_SHOWN_STEPS = 300


def draw_inspection(task: Files, path: Path) -> None:
    """Draw the lengths, the classes in each split, and one sequence.

    Args:
        task: the sequences.
        path: of the PNG file.

    Raises:
        ConfigError: if a link or something else is in its place.
        DiskFullError: if the disk is full.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    lengths_axis, classes_axis, sequence_axis = figure.subplots(1, 3)

    lengths = task.flat.lengths
    low, high = int(lengths.min()), int(lengths.max())
    bins = np.arange(low, high + 2) - 0.5 if high - low < 40 else np.linspace(low, high, 41)
    lengths_axis.hist(lengths, bins=bins, color="C0")
    lengths_axis.set_xlabel("length in steps")
    lengths_axis.set_ylabel("sequences")
    lengths_axis.set_title("Lengths", fontsize=10)
    lengths_axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))

    names = task.class_names[:_MOST_CLASSES]
    before = np.zeros(len(names))
    for split, colour in zip(SPLITS, ("C0", "C1", "C2"), strict=True):
        counts = np.array(task.class_counts(split)[:_MOST_CLASSES])
        classes_axis.bar(range(len(names)), counts, bottom=before, label=split, color=colour)
        before += counts
    shown = [(name if len(name) <= 10 else f"{name[:9]}…").replace("$", r"\$") for name in names]
    is_wide = max(map(len, shown)) > 2
    classes_axis.set_xticks(range(len(names)), shown, rotation=90 if is_wide else 0, fontsize=8)
    classes_axis.set_ylabel("sequences")
    classes_axis.set_xlabel("class")
    classes_axis.legend(fontsize=8)
    classes_axis.set_title(
        "Classes" if len(names) == len(task.class_names) else f"The first {_MOST_CLASSES} classes", fontsize=10
    )

    sequence = task.generate(task.config.seed, "train", np.array([0]))
    length = int(sequence.lengths[0])
    steps = np.arange(1, min(length, _SHOWN_STEPS) + 1)
    for column in range(min(task.num_features, _MOST_FEATURES)):
        name = task.feature_names[column].replace("$", r"\$")
        sequence_axis.plot(steps, sequence.features[0, : len(steps), column], linewidth=1, label=name[:14])
    sequence_axis.set_xlabel("step")
    sequence_axis.set_ylabel("scaled value")
    label = task.class_names[int(sequence.classes[0])].replace("$", r"\$")
    sequence_axis.set_title(f"A training sequence, class {label[:20]}", fontsize=10)
    sequence_axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    sequence_axis.legend(fontsize=6, ncols=2)
    image = io.BytesIO()
    figure.savefig(image, dpi=130)
    refuse_odd_kinds([path], reversed(path.parents[:-1]))
    with explained_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, image.getvalue())
