"""The figures of the throughput study."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_OURS, _OTHERS, _FLOOR = "C0", "0.7", "0.5"


def draw_kernel(table: pd.DataFrame, path: Path) -> None:
    """Draw the speedup of the kernels over nn.GRU against the hidden size.

    Args:
        table: result of :func:`kernel.measure` for shapes that differ only in hidden size.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(table["hidden_size"], table["lowest"], table["highest"], alpha=0.25, label="lowest to highest")
    axis.plot(table["hidden_size"], table["ratio"], "o-", label="median")
    axis.axhline(1, color="0.5", linestyle=":", label="nn.GRU")
    axis.set_xscale("log", base=2)
    axis.set_xticks([2**power for power in range(10)], [str(2**power) for power in range(10)])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("hidden size (units)")
    axis.set_ylabel("times as fast as nn.GRU")
    axis.set_title("Forward and backward, 20 steps, batch 32, one thread", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def draw_runs(table: pd.DataFrame, path: Path) -> None:
    """Draw the time of a training epoch for each contender, with a panel for each shape.

    Args:
        table: result of :func:`measure.measure_runs`.
        path: PNG file to write.
    """
    shapes = list(table["shape"].unique())
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(1, len(shapes), sharey=True)
    for axis, shape in zip(axes, shapes, strict=True):
        medians = table[table["shape"] == shape].groupby("contender", sort=False)["epoch"].median() * 1000
        _bars(axis, medians, "{:.0f}")
        axis.set_xlabel("training epoch (ms)")
        axis.set_title(shape, fontsize=10)
    _save(figure, path)


def draw_sweep(table: pd.DataFrame, path: Path) -> None:
    """Draw the time of the default sweep for each contender, and its floor.

    Args:
        table: result of :func:`measure.measure_sweep`.
        path: PNG file to write.
    """
    medians = table.groupby("contender", sort=False)["seconds"].median()
    floor = medians["imports"] + medians["loops"]
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axis = figure.subplots()
    _bars(axis, medians.drop(["imports", "loops", "kernels"]), "{:.1f}")
    axis.axvline(floor, color=_FLOOR, linestyle=":", label="floor: imports and loops of PyTorch alone")
    axis.set_xlabel("36 jobs, start-up included (s)")
    axis.legend(fontsize=8, loc="lower right")
    _save(figure, path)


def draw_length(medians: pd.DataFrame, path: Path) -> None:
    """Draw the time per step of a batch against the length of the sequences.

    Args:
        medians: microseconds; a row for each length, a column for each contender, NaN where it was not measured.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(medians.columns):
        values = medians[name].dropna()
        width = 2 if name == "grulab" else 1
        axis.plot(values.index, values, "o-", label=name, linewidth=width, color=f"C{number}")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("length of the sequences (steps)")
    axis.set_ylabel("µs per step of a batch")
    axis.set_title("Training, 64 units, batch 32, one core", fontsize=10)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    _save(figure, path)


def _bars(axis: Axes, values: "pd.Series[float]", form: str) -> None:
    colours = [_OURS if str(name) == "grulab" else _OTHERS for name in values.index]
    bars = axis.barh([str(name) for name in values.index], values.to_numpy(), color=colours)
    axis.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * float(values.max()))
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
