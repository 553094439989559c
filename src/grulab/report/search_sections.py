"""What the report of a search says: its best configuration over fresh seeds, and how much each key matters."""

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from grulab.config.schema import is_higher_better
from grulab.report.leaderboard import Leaderboard
from grulab.report.sections import Section
from grulab.report.statistics import bounds
from grulab.sweep.search import Trial, make_study
from grulab.sweep.search_space import Axis

_FEWEST_TRIALS = 4
# A key whose values span such a factor was searched by its logarithm, or may as well be looked at in that way.
_LOG_FROM = 10.0


def recommend_found(board: Leaderboard) -> str:
    """Return the configuration that a search has found, with its metric over seeds that did not choose it."""
    first = board.ranking.iloc[0]
    text = f"Use {board.label(first)}: {first['parameters']:,} parameters"
    fresh = board.fresh
    for key in board.swept:
        fresh = fresh[fresh[key] == first[key]]
    chosen = f"{first[board.metric]:.4f} over the seeds that chose it ({first['seeds']}), which flatter it"
    if fresh.empty:
        return f"{text}; {board.metric} {chosen}. No fresh seeds have been tried."
    low, high = bounds(fresh[board.metric], is_share=is_higher_better(board.metric))
    interval = f"95 % interval {low:.4f} to {high:.4f}" if len(fresh) > 2 else f"{low:.4f} to {high:.4f}"
    return (
        f"{text}. Over fresh seeds ({len(fresh)}), which did not choose it, {board.metric} is "
        f"{fresh[board.metric].mean():.4f} ({interval}), and test/accuracy {fresh['test/accuracy'].mean():.4f}; "
        f"{board.metric} is {chosen}."
    )


def search_sections(board: Leaderboard) -> list[Section]:
    """Return how much each key matters, as far as Optuna can tell."""
    ended = board.ranking[board.ranking["epochs"] == board.ranking["epochs"].max()]
    if len(ended) < _FEWEST_TRIALS or find_spec("optuna") is None:
        return []
    shares = _importances(board, ended)
    if not shares:
        return []
    table = pd.DataFrame({"key": list(shares), "importance": [f"{share:.0%}" for share in shares.values()]})
    text = f"The share of the differences between {len(ended)} trials that each key explains (fANOVA)."
    return [Section("What matters", text, table)]


def best_so_far(board: Leaderboard) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the best mean of a configuration after each finished job, in the order of their numbers; NaN before.

    A configuration counts when the last of its seeds is done.
    """
    jobs, keys = board.done, [*board.swept]
    sign = 1 if is_higher_better(board.metric) else -1
    groups = [group for _, group in jobs.groupby(keys, sort=False)] if keys else [jobs]
    ends = {group.index.max(): float(group[board.metric].mean()) for group in groups}
    scores = np.array([sign * ends.get(index, -np.inf) for index in jobs.index])
    best = np.maximum.accumulate(scores)
    return np.where(np.isfinite(best), sign * best, np.nan)


def _importances(board: Leaderboard, ended: pd.DataFrame) -> dict[str, float]:
    import optuna

    axes = [_axis(key, ended[key].tolist()) for key in board.swept]
    trials = []
    for _, row in ended.iterrows():
        values = {axis.key: str(row[axis.key]) if axis.choices else row[axis.key] for axis in axes}
        trials.append(Trial([], values, {0: float(row[board.metric])}, "done"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = make_study(trials, axes, board.metric)
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
        # All trials may have the same result.
        except (ValueError, RuntimeError):
            return {}
    return shares


def _axis(key: str, values: list[Any]) -> Axis:
    if any(isinstance(value, bool | str) for value in values) or len(set(values)) < 2:
        texts = list(dict.fromkeys(map(str, values)))
        return Axis(key, None, None, None, is_whole=False, is_log=False, choices=texts)
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= _LOG_FROM
    is_whole = all(isinstance(value, int) for value in values)
    return Axis(key, low, high, None, is_whole, is_log, [])
