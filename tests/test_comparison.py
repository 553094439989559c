"""The statistics of verdicts and races: how often they are wrong, and what they say of known numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grulab.sweep.comparison import Comparison
from grulab.sweep.race import outcome

# Of the 5 % that is promised, and three standard errors of what the number of simulations below can show.
_SIMULATIONS = 600
_AT_MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / _SIMULATIONS)


def test_two_configurations_alone_are_a_t_test() -> None:
    one, other = [0.80, 0.82, 0.81], [0.79, 0.81, 0.80]
    compared = Comparison.of([one, other])
    test = stats.ttest_ind(one, other)
    assert compared.freedom == 4
    assert (compared.means[0] - compared.means[1]) / compared.error(0, 1) == pytest.approx(test.statistic)
    ends = test.confidence_interval(0.95)
    assert compared.half_width(0, 1) == pytest.approx((ends.high - ends.low) / 2)


def test_two_configurations_over_the_same_data_are_a_paired_t_test() -> None:
    one, other = [0.80, 0.72, 0.91, 0.85], [0.79, 0.70, 0.91, 0.84]
    compared = Comparison.of([one, other], is_paired=True)
    test = stats.ttest_rel(one, other)
    assert compared.freedom == 3
    assert (compared.means[0] - compared.means[1]) / compared.error(0, 1) == pytest.approx(test.statistic)
    ends = test.confidence_interval(0.95)
    assert compared.half_width(0, 1) == pytest.approx((ends.high - ends.low) / 2)


def test_what_the_data_are_worth_to_all_is_no_error() -> None:
    """With the luck of the data, which all configurations share, leads are as rarely false, and intervals narrow."""
    generator = np.random.default_rng(0)
    false, widths = 0, []
    for _ in range(_SIMULATIONS):
        luck = generator.standard_normal(5) / 10
        scores = np.array([0, 0, -1, -1])[:, None] + luck + generator.standard_normal((4, 5)) / 100
        compared = Comparison.of(list(scores), is_paired=True)
        others = [place for place in range(4) if place != compared.best]
        false += all(compared.is_real(compared.best, other) for other in others)
        widths.append(compared.half_width(0, 1) / Comparison.of(list(scores)).half_width(0, 1))
    assert false / _SIMULATIONS <= _AT_MOST
    assert np.median(widths) < 0.2


def test_a_large_variance_is_not_hidden_in_the_pool() -> None:
    quiet = [[0.8, 0.8001, 0.8002]] * 5
    compared = Comparison.of([[0.5, 0.9, 0.7], *quiet])
    assert compared.variances[0] == pytest.approx(0.04)
    assert compared.variances[1] < 0.01


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_lead_that_is_none_is_rarely_called_real(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    false = 0
    for _ in range(_SIMULATIONS):
        # The least favourable case: two are the best, and the others far below.
        scores = np.array([0, 0, -1, -1])[:, None] + generator.standard_normal((4, seeds)) / 100
        compared = Comparison.of(list(scores))
        false += all(compared.is_real(compared.best, other) for other in range(4) if other != compared.best)
    assert false / _SIMULATIONS < _AT_MOST


def test_a_race_rarely_drops_the_best_and_saves_jobs() -> None:
    generator = np.random.default_rng(0)
    means, most = np.array([0, -0.005, -0.01, *np.linspace(-0.02, -0.08, 9)]), 10
    dropped, jobs = 0, 0
    for _ in range(_SIMULATIONS // 3):
        scores = means[:, None] + 0.012 * generator.standard_normal((12, most))
        have = np.full(12, 3)
        while True:
            found = outcome([row[:count] for row, count in zip(scores, have, strict=True)], indifference=0)
            if found.why or have[found.left[0]] == most:
                break
            have[found.left] = min(found.seeds, most)
        dropped += 0 not in found.left
        jobs += int(have.sum())
    assert dropped == 0
    assert jobs / (_SIMULATIONS // 3) < 0.6 * 12 * most


def test_a_race_ends() -> None:
    assert outcome([[0.9, 0.91, 0.9], [0.1, 0.12, 0.1], [0.1, 0.1, 0.11]], 0).why == "one configuration is left"
    near = outcome([[0.9, 0.9002, 0.9001], [0.9001, 0.9, 0.9002]], 0.005)
    assert near.why == "those that are left differ by less than 0.005"
    assert near.left == [1, 0] or near.left == [0, 1]
    going_on = outcome([[0.9, 0.8, 0.7], [0.8, 0.9, 0.7]], 0.005)
    assert (going_on.why, going_on.seeds, going_on.look) == ("", 4, 1)
    # Fewer seeds than at the first look.
    assert outcome([[0.9, 0.8], [0.1, 0.2]], 0).seeds == 3


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=8), min_size=2, max_size=5),
    st.integers(3, 8),
)
def test_a_race_is_told_in_the_same_way_from_more_seeds(scores: list[list[float]], seeds: int) -> None:
    """Who dropped out at a look is out, whatever the seeds that come later say."""
    early = outcome([part[:seeds] for part in scores], 0)
    late = outcome(scores, 0)
    if not early.why:
        assert set(late.left) <= set(early.left)
    assert late.left


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_shares_of_the_first_place_add_up(scores: list[list[float]]) -> None:
    shares = Comparison.of(scores).shares_of_first()
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()


def test_seeds_to_settle_are_those_of_a_power_calculation() -> None:
    generator = np.random.default_rng(0)
    compared = Comparison.of([0.80 + 0.01 * generator.standard_normal(4), 0.79 + 0.01 * generator.standard_normal(4)])
    seeds = compared.seeds_to_settle(0, 1)
    assert seeds is not None
    difference, deviation = abs(compared.means[0] - compared.means[1]), np.sqrt(compared.variances.mean())
    found = [
        stats.ttest_ind(difference + deviation * one, deviation * other).pvalue < 0.05
        for one, other in generator.standard_normal((2000, 2, seeds))
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert Comparison.of([[0.5], [0.6]]).seeds_to_settle(0, 1) is None
    assert Comparison.of([[0.5, 0.6], [0.5, 0.6]]).seeds_to_settle(0, 1) is None


def test_the_most_that_the_best_can_be_ahead() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(_SIMULATIONS):
        scores = np.array([0.8, 0.79, 0.78])[:, None] + 0.01 * generator.standard_normal((3, 3))
        compared = Comparison.of(list(scores))
        held += compared.most_gained(2) >= 0.02
    assert held / _SIMULATIONS > 0.95 - 3 * np.sqrt(0.05 * 0.95 / _SIMULATIONS)
