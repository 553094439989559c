"""The training trace: a table of the epochs, with a remark on the numbers of each."""

from collections.abc import Sequence

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
    text = (
        f"Validation accuracy between chance ({chance:.3f}) and ceiling ({ceiling_in_words(ceiling)}); "
        f"epoch {used_epoch} is traced."
    )
    shown = list(range(len(epochs)))
    if len(shown) > _ROWS:
        text += f" The first and last {_ROWS // 2} of {len(shown)} epochs."
        shown = [*shown[: _ROWS // 2], *shown[-_ROWS // 2 :]]
    remarks = observe(epochs, chance, ceiling, shown)
    epochs = epochs.iloc[shown]
    rows = pd.DataFrame(
        {
            "epoch": epochs["epoch"].astype(int),
            "train loss": epochs["train/loss"].map("{:.4f}".format),
            "val loss": epochs["val/loss"].map("{:.4f}".format),
            "train acc.": epochs["train/accuracy"].map("{:.3f}".format),
            "val acc.": epochs["val/accuracy"].map("{:.3f}".format),
            "": [bar(value) for value in epochs["val/accuracy"]],
            "observation": remarks,
        }
    )
    return Section(title, text, rows)


def bar(accuracy: float) -> str:
    """Return an accuracy as a text bar, which is full at 1."""
    full = round(_BAR * min(max(accuracy, 0), 1))
    return "█" * full + "░" * (_BAR - full)


def observe(
    epochs: pd.DataFrame, chance: float, ceiling: float | None, positions: Sequence[int] | None = None
) -> list[str]:
    """Return a remark on rows of metrics.csv, by default on all, each compared with the rows before it."""
    remarks = []
    for position in range(len(epochs)) if positions is None else positions:
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
