"""The training trace: a table of the epochs, with a remark on the numbers of each."""

import pandas as pd

from grulab.report.sections import Section
from grulab.run_folder import paths
from grulab.tasks.base import ceiling_in_words

_ROWS = 40
_BAR = 10
# Between chance and a ceiling that are closer, a share means nothing.
_LEAST_SPAN = 1e-6


def training_section(epochs: pd.DataFrame | None, chance: float, ceiling: float | None, used_epoch: int) -> Section:
    """Return the training trace of a metrics.csv.

    Args:
        epochs: the table; None if it is missing or damaged.
        chance: the task's chance level.
        ceiling: the task's ceiling, or None where it is unknown.
        used_epoch: the epoch of the checkpoint that is traced.
    """
    title = "Training trace"
    if epochs is None:
        return Section(title, f"Not known: there is no {paths.METRICS} beside this checkpoint, or it is damaged.")
    if epochs.empty:
        return Section(title, f"Not known: {paths.METRICS} has no epoch yet.")
    remarks = observe(epochs, chance, ceiling)
    rows = pd.DataFrame(
        {
            "epoch": epochs["epoch"],
            "train loss": epochs["train/loss"].map("{:.4f}".format),
            "val loss": epochs["val/loss"].map("{:.4f}".format),
            "train acc.": epochs["train/accuracy"].map("{:.3f}".format),
            "val acc.": epochs["val/accuracy"].map("{:.3f}".format),
            "": [bar(value) for value in epochs["val/accuracy"]],
            "observation": remarks,
        }
    )
    text = (
        f"Validation accuracy between chance ({chance:.3f}) and ceiling ({ceiling_in_words(ceiling)}); "
        f"epoch {used_epoch} is traced."
    )
    if len(rows) > _ROWS:
        text += f" The first and last {_ROWS // 2} of {len(rows)} epochs."
        rows = pd.concat([rows.head(_ROWS // 2), rows.tail(_ROWS // 2)])
    return Section(title, text, rows)


def bar(accuracy: float) -> str:
    """Return an accuracy as a text bar, which is full at 1."""
    full = round(_BAR * accuracy)
    return "█" * full + "░" * (_BAR - full)


def observe(epochs: pd.DataFrame, chance: float, ceiling: float | None) -> list[str]:
    """Return a remark on each row of metrics.csv, compared with the rows before it."""
    remarks = []
    for position in range(len(epochs)):
        row, before = epochs.iloc[position], epochs.iloc[:position]
        remarks.append("; ".join(_remarks(row, before, chance, ceiling)))
    return remarks


def _remarks(row: "pd.Series[float]", before: pd.DataFrame, chance: float, ceiling: float | None) -> list[str]:
    accuracy, loss = row["val/accuracy"], row["val/loss"]
    found = [_place(accuracy, chance, ceiling)]
    if before.empty:
        return found
    last = before.iloc[-1]
    if loss > last["val/loss"] and row["train/loss"] < last["train/loss"]:
        found.append("train loss falls, val loss rises")
    elif row["train/loss"] > last["train/loss"]:
        found.append(f"train loss rose by {row['train/loss'] - last['train/loss']:.3f}")
    elif loss < last["val/loss"]:
        found.append(f"val loss fell by {1 - loss / last['val/loss']:.0%}")
    if accuracy > before["val/accuracy"].max():
        found.append("best so far")
    return found


def _place(accuracy: float, chance: float, ceiling: float | None) -> str:
    """Return in words where an accuracy lies between chance and ceiling."""
    if ceiling is None or ceiling - chance < _LEAST_SPAN:
        return "no better than chance" if accuracy <= chance else f"{accuracy - chance:.3f} above chance"
    # The fraction of the range between chance and ceiling: 0 at chance, 1 at the ceiling.
    learned = (accuracy - chance) / (ceiling - chance)
    if learned < 0.05:
        return "no better than chance"
    return "at the ceiling" if learned > 0.98 else f"{learned:.0%} of the way to the ceiling"
