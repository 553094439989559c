"""What a sweep says: which configuration to use, whether the first is better, and what would settle it."""

import math
from functools import cached_property

import numpy as np
import pandas as pd

from grulab.config.schema import is_higher_better
from grulab.report.leaderboard import Leaderboard
from grulab.run_folder.paths import display_path
from grulab.sweep.comparison import Comparison, level_of_look
from grulab.sweep.race import outcome


class Verdict:
    """The comparison of the configurations of a leaderboard that have results of all seeds, trained to the end.

    Args:
        board: with at least one configuration that has a result.
    """

    def __init__(self, board: Leaderboard) -> None:
        self._board = board
        ranking = board.ranking
        whole = ranking[ranking["missing"] == 0]
        rows = whole if len(whole) else ranking
        if board.rungs:
            rows = rows[rows["epochs"] == rows["epochs"].max()]
        self.rows = rows.reset_index(drop=True)
        sign = 1 if is_higher_better(board.metric) else -1
        self._scores = [(sign * board.scores(row)).tolist() for _, row in self.rows.iterrows()]
        # The repetitions of data seeds are in the order of the seeds.
        same_data = len({tuple(board.scores(row).index) for _, row in self.rows.iterrows()}) == 1
        self._compared = Comparison.of(self._scores, is_paired=board.repeat != "seed" and same_data)

    @cached_property
    def recommended(self) -> int | None:
        """The position of the smallest configuration that is not worse than the first; None if nobody knows."""
        compared, board = self._compared, self._board
        if len(self.rows) < 2 or not compared.freedom or not board.is_over:
            return None
        level = level_of_look(board.looks)
        worse = {*compared.worse(level / 2), *(other for other in range(1, len(self.rows)) if self._is_behind(other))}
        good = [place for place in range(len(self.rows)) if place not in worse]
        if board.indifference is not None:
            found = outcome(self._scores, board.indifference)
            if not found.look:
                return None
            good = found.left
        return min(good, key=lambda place: (int(self.rows["parameters"].iloc[place]), place))

    def recommendation(self) -> str | None:
        """Return which configuration to use, in words; None if nobody knows."""
        compared, board, chosen = self._compared, self._board, self.recommended
        if chosen is None:
            return None
        row = self.rows.iloc[chosen]
        text = f"Use {board.label(row)}: {row['parameters']:,} parameters"
        if chosen == 0:
            is_smallest = row["parameters"] == self.rows["parameters"].min()
            return f"{text}; {'none is smaller' if is_smallest else 'every smaller one is worse'}."
        gain = compared.most_gained(chosen)
        verb = "buys at most" if is_higher_better(board.metric) else "takes at most"
        more = "more" if is_higher_better(board.metric) else "off"
        return f"{text}; {board.label(self.rows.iloc[0])} {verb} {gain:.3f} {more} {board.metric} (95 %)."

    def winner(self) -> str:
        """Return whether the first configuration is better than all others, or what would tell."""
        board, compared = self._board, self._compared
        if len(self.rows) < 2:
            return "There is nothing to compare: one configuration has results."
        # The one that it is the least surely ahead of.
        other = min(range(1, len(self.rows)), key=self._surplus)
        first, second = board.label(self.rows.iloc[0]), board.label(self.rows.iloc[other])
        counts = compared.counts
        if not compared.freedom:
            return (
                f"{first} is ahead of {second}, with one seed each: more are needed to tell a difference from chance."
            )
        if board.indifference is not None:
            return self._race(board.indifference)
        difference = float(compared.means[0] - compared.means[other])
        if difference == 0:
            return f"{first} and {second} are equal, over {counts[0]} and {counts[other]} seeds."
        half = compared.half_width(0, other)
        what = (
            f"{first} is ahead of {second} by {difference:.4f} in {board.metric} (95 % interval "
            f"{difference - half:+.4f} to {difference + half:+.4f}, {counts[0]} and {counts[other]} seeds)"
        )
        if self._is_behind(other):
            against = f" It is ahead of each of the {len(self.rows) - 1} others in this way." * (len(self.rows) > 2)
            return f"{what}: the difference is real.{against}"
        return f"{what}: that may be chance. {self._what_would_tell(other)}"

    def _race(self, indifference: float) -> str:
        """Return where a race stands, with its own correction for having looked several times."""
        found = outcome(self._scores, indifference)
        if not found.look:
            return f"The race has not had its first round: {found.seeds} seeds of each configuration."
        names = [self._board.label(self.rows.iloc[place]) for place in found.left]
        stopped = len(self._board.ranking) - len(self.rows)
        others = f" {stopped} that did not get to the end are not compared." * bool(stopped)
        if len(names) == 1:
            other = min(range(1, len(self.rows)), key=self._surplus)
            half = self._compared.half_width(0, other)
            difference = float(self._compared.means[0] - self._compared.means[other])
            interval = f"95 % interval {difference - half:+.4f} to {difference + half:+.4f}"
            return (
                f"{names[0]} is better than all {len(self.rows) - 1} that it raced against, which dropped out: the "
                f"difference is real. The nearest is {self._board.label(self.rows.iloc[other])}, {difference:.4f} "
                f"behind in {self._board.metric} ({interval}).{others}"
            )
        out = len(self.rows) - len(names)
        ended = f"the race ended, because {found.why}" if found.why else "the race has not told them apart"
        text = f"{'; '.join(names)}: {ended}. {out} of {len(self.rows)} are worse, and dropped out.{others}"
        if found.why:
            return text
        more = found.seeds * len(names) + len(self._board.jobs)
        command = f"grulab resume {display_path(self._board.folder)} hydra.sweeper.max_jobs={more}"
        return f"{text} It goes on with\n\n{command}"

    def caveats(self) -> list[str]:
        """Return what no number of seeds tells: the choice of the best flatters it, and the test is a sample."""
        first = self.rows.iloc[0]
        lines = []
        if "test/accuracy" in first and not pd.isna(first["test/accuracy"]):
            chosen = len(self._board.jobs[[*self._board.swept, *self._board.tuned]].drop_duplicates())
            best = (
                f"and of the best of {chosen} configurations: both choices flatter"
                if chosen > 1
                else "which flatters"
            )
            lines.append(
                f"{self._board.metric} {first[self._board.metric]:.4f} is that of the best epoch, {best} it. The "
                f"test accuracy, which chose nothing, is {first['test/accuracy']:.4f}."
            )
            members = self._board.members(first)
            sequences = int(members["test_sequences"].min())
            # Of several data seeds, the spread and the interval have it in them.
            if sequences and self._board.repeat == "seed":
                share = float(first["test/accuracy"])
                error = math.sqrt(share * (1 - share) / sequences)
                lines.append(
                    f"{sequences:,} test sequences leave a standard error of {error:.3f} in it, which no number of "
                    "seeds averages out."
                )
        return lines

    @cached_property
    def shares(self) -> list[float]:
        """How often each row of ``rows`` would be first with other seeds."""
        return self._compared.shares_of_first().tolist()  # type: ignore[no-any-return]

    def tuned_at_an_edge(self) -> list[str]:
        """Return a line for each tuned key of which a configuration has chosen the smallest or the largest value."""
        lines = []
        # At a rung others than the best are stopped, so what is left says nothing of the edge.
        for key in self._board.tuned if not self._board.rungs else []:
            values = sorted(set(self._board.jobs[key]), key=lambda value: (isinstance(value, str), value))
            if len(values) < 2 or isinstance(values[-1], str | bool | np.bool_):
                continue
            for edge, word in ((values[0], "smallest"), (values[-1], "largest")):
                names = [self._board.label(row) for _, row in self.rows.iterrows() if row[key] == edge]
                if names:
                    some = f"{len(names)} of {len(self.rows)} configurations" if len(self.rows) > 1 else "it"
                    lines.append(f"{edge} is the {word} {key} tried, and {some} chose it: try {word[:-3]}er ones.")
        return lines

    def _is_behind(self, place: int) -> bool:
        """Return whether the first is really better than another one."""
        return self._compared.is_real(0, place, level_of_look(self._board.looks))

    def _surplus(self, place: int) -> float:
        """Return how far the first is ahead of another one, beyond what may be chance."""
        compared = self._compared
        half = compared.half_width(0, place) if compared.freedom else 0.0
        return float(compared.means[0] - compared.means[place]) - half

    def _what_would_tell(self, other: int) -> str:
        seeds = self._compared.seeds_to_settle(0, other)
        jobs, repeat = self._board.jobs, self._board.repeat
        folder = display_path(self._board.folder)
        if seeds is None:
            return "The difference is too small for any reasonable number of seeds to tell."
        text = f"About {seeds} seeds would tell (power 0.8):\n\ngrulab resume {folder} {_more(jobs[repeat], seeds)}"
        if repeat != "seed":
            pairs = jobs[[repeat, "seed"]].drop_duplicates()
            is_side_by_side = pairs[repeat].is_unique and pairs["seed"].is_unique
            return f"{text} {_more(pairs['seed'], seeds)}" if is_side_by_side else text
        return (
            f"{text}\n\nor, with seeds only for those that are not worse yet:\n\n"
            f"grulab resume {folder} hydra/sweeper=race"
        )


def _more(known: "pd.Series[int]", count: int) -> str:
    """Return the override that makes seeds up to a number, the known ones first and in their order."""
    seeds = list(dict.fromkeys(known.tolist()))
    if seeds == list(range(len(seeds))):
        return f"{known.name}='range({count})'"
    seeds += [seed for seed in range(max(seeds) + 1 + count) if seed not in seeds][: max(0, count - len(seeds))]
    return f"{known.name}={','.join(map(str, seeds))}"


def stopped_at_rungs(board: Leaderboard) -> str | None:
    """Return how many configurations were stopped at which rung, in words; None without rungs."""
    if not board.rungs:
        return None
    keys = [*board.swept, *board.tuned]
    epochs = board.done.groupby(keys)["max_epochs"].min() if keys else board.done["max_epochs"].head(1)
    parts = []
    for number, rung in enumerate(board.rungs, start=1):
        count = int(np.count_nonzero(epochs == rung))
        where = "trained to the end" if rung == board.rungs[-1] else f"stopped at rung {number}"
        parts.append(f"{count} {where} ({rung} epochs)")
    return f"Of {len(epochs)} configurations {', '.join(parts)}"
