"""The figures of a sweep."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from grulab.config.schema import is_higher_better
from grulab.config.validation_messages import shown_value
from grulab.report.leaderboard import Leaderboard, effects
from grulab.report.search_sections import best_so_far
from grulab.report.statistics import bounds
from grulab.tasks.baselines import MAJORITY
from grulab.training.confusion_figure import draw_confusion

_HIGHLIGHTED = 4


def draw_effects(board: Leaderboard, path: Path) -> None:
    """Draw the metric against each swept key: means over all jobs with their 95 % intervals, jobs as dots."""
    count = len(board.swept)
    figure = Figure(figsize=(max(5.2, 2.8 * count), 3.4), layout="constrained")
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axis, key in zip(axes, board.swept, strict=True):
        table = effects(board, key)
        positions = np.arange(len(table))
        for position, value in zip(positions, table["value"].tolist(), strict=True):
            dots = board.tuned_jobs[board.tuned_jobs[key] == value][board.metric]
            axis.plot(np.full(len(dots), position), dots, "o", color="0.75", markersize=3, zorder=1)
        axis.errorbar(
            positions, table["mean"], yerr=_around(table, "mean", "low", "high"), fmt="o-", capsize=4, zorder=2
        )
        axis.set_xticks(positions, [shown_value(value) for value in table["value"].tolist()])
        axis.set_xlabel(board.short(key))
        axis.margins(x=0.15)
    axes[0].set_ylabel(board.metric)
    figure.suptitle("Each swept key on its own: jobs (grey), mean and its 95 % interval", fontsize=10)
    figure.savefig(path, dpi=130)


def draw_search(board: Leaderboard, path: Path) -> None:
    """Draw each configuration of a search, and the best so far, against the number of jobs."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    jobs = np.arange(1, len(board.done) + 1)
    axis.plot(jobs, board.done[board.metric], "o", color="0.7", markersize=3, label="a job")
    axis.step(jobs, best_so_far(board), where="post", color="C3", linewidth=2, label="best mean over seeds so far")
    axis.set_xlabel("jobs")
    axis.set_ylabel(board.metric)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8, loc="lower right")
    axis.set_title("The search", fontsize=10)
    figure.savefig(path, dpi=130)


def draw_pareto(board: Leaderboard, path: Path) -> None:
    """Draw the metric against the number of parameters, with the Pareto front of the two."""
    ranking = board.ranking.sort_values("parameters", kind="stable")
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    spans = _around(ranking, board.metric, f"{board.metric} low", f"{board.metric} high")
    axis.errorbar(ranking["parameters"], ranking[board.metric], yerr=spans, fmt="o", capsize=3, color="0.6")
    sign = 1 if is_higher_better(board.metric) else -1
    scores = sign * ranking[board.metric]
    front = ranking[scores > scores.cummax().shift(fill_value=-np.inf)]
    axis.plot(front["parameters"], front[board.metric], "-", color="C3", linewidth=1)
    for place, (_, row) in enumerate(front.iterrows(), start=1):
        axis.plot(
            row["parameters"], row[board.metric], "o", color="C3", zorder=3, label=f"{place}  {board.label(row)}"
        )
        axis.annotate(
            str(place), (row["parameters"], row[board.metric]), fontsize=9, weight="bold", color="C3",
            xytext=(-5, 4), textcoords="offset points", ha="right",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlabel("parameters")
    axis.set_ylabel(f"{board.metric}, mean over seeds")
    axis.margins(x=0.12, y=0.12)
    axis.legend(fontsize=7, loc="lower right", title="the front", title_fontsize=8, handlelength=1)
    axis.set_title("What parameters buy: mean and its 95 % interval", fontsize=10)
    figure.savefig(path, dpi=130)


def draw_learning(board: Leaderboard, path: Path) -> None:
    """Draw validation accuracy over epochs: means over seeds, the best configurations in colour."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for place, (_, row) in enumerate(board.ranking[::-1].iterrows()):
        rank = len(board.ranking) - place
        tables = board.tables(row)
        if not tables:
            continue
        curves = pd.concat(tables).groupby("epoch")["val/accuracy"]
        mean = curves.mean()
        if rank > _HIGHLIGHTED:
            axis.plot(mean.index, mean, color="0.8", linewidth=1, label="others" if place == 0 else None)
            continue
        (line,) = axis.plot(mean.index, mean, linewidth=2, label=f"{rank}. {board.label(row)}")
        ends = np.array([bounds(values, is_share=True) for _, values in curves])
        axis.fill_between(mean.index, *ends.T, color=line.get_color(), alpha=0.12, linewidth=0)
    for name, style in (("ceiling", ":"), ("chance", "--")):
        # One for each task; none where it is unknown.
        for level in board.done[name].dropna().unique():
            axis.axhline(level, color="black", linestyle=style, linewidth=1)
            axis.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
    # The majority class is what chance is.
    known = [baseline for baseline in board.best_job["baselines"] if baseline["name"] != MAJORITY]
    for place, baseline in enumerate(known):
        axis.axhline(baseline["val"], color="C7", linestyle="-.", linewidth=1)
        axis.annotate(
            baseline["name"].replace("_", " "), (0.01 + 0.25 * place, baseline["val"]), fontsize=8, color="C7",
            xycoords=("axes fraction", "data"), va="bottom",
        )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, -0.02), min(high, 1.04))
    axis.set_xlabel("epoch")
    axis.set_ylabel("val/accuracy, mean over seeds")
    axis.set_title("Learning curves, with 95 % intervals of the best", fontsize=10)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.08))
    figure.savefig(path, dpi=130)


def _around(table: pd.DataFrame, mean: str, low: str, high: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return how far the ends of the intervals are from the means, as Matplotlib's error bars want it: (2, rows)."""
    return np.stack([table[mean] - table[low], table[high] - table[mean]]).clip(min=0)


def draw_confusion_of_best(board: Leaderboard, path: Path) -> None:
    """Draw the confusion matrix of the best job on its test sequences."""
    best = board.best_job
    names = [row["class"] for row in best["classes"]]
    draw_confusion(best["confusion_matrix"], names).savefig(path, dpi=130)
