"""The section of a report on the classes of an evaluation."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from grulab.report.sections import Section


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
