"""The parts of a report that an evaluation, an inspection and a sweep share: classes and simple classifiers."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from grulab.report.sections import Section
from grulab.tasks.baselines import IN_WORDS


def class_section(rows: Sequence[dict[str, Any]], text: str = "") -> Section:
    """Return precision, recall, F1 and support of each class.

    Args:
        rows: as :meth:`grulab.training.metrics.ClassTable.rows` returns them, and summary.json has them.
        text: what to say before.
    """
    table = pd.DataFrame(list(rows))
    for name in ("precision", "recall", "f1"):
        table[name] = table[name].map("{:.3f}".format)
    support = "Support is the number of sequences of the class."
    return Section("Classes", f"{text} {support}".strip(), table.rename(columns={"f1": "F1"}))


def baseline_table(accuracies: Iterable[tuple[str, float, float]]) -> pd.DataFrame:
    """Return a table of simple classifiers.

    Args:
        accuracies: the name of each, its accuracy on the validation split and its accuracy on the test split.
    """
    rows = [(IN_WORDS.get(name, name), f"{val:.4f}", f"{test:.4f}") for name, val, test in accuracies]
    return pd.DataFrame(rows, columns=["classifier", "val accuracy", "test accuracy"])
