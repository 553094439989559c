"""hidden_markov: its models, its exact ceiling, and that only the order of the symbols tells the classes apart."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from grulab import compose, train
from grulab.tasks.base import Sequences
from grulab.tasks.hidden_markov import HiddenMarkov
from grulab.tasks.registry import build_task


def task_of(*overrides: str) -> HiddenMarkov:
    task = build_task(compose(["data=hidden_markov", *overrides]).data)
    assert isinstance(task, HiddenMarkov)
    return task


def counts(sequences: Sequences) -> NDArray[np.float32]:
    """Return how often each symbol comes in each sequence."""
    return sequences.features.sum(axis=1)


def joint_of(task: HiddenMarkov, symbols: Sequence[int]) -> NDArray[np.float64]:
    """Return the probability of these symbols in each class, (3,), as a sum over all hidden paths."""
    transitions, emissions = task.transitions(), task.emissions()
    joint = np.zeros(3)
    for path in itertools.product(range(4), repeat=len(symbols)):
        emitted = math.prod(emissions[state, symbol] for state, symbol in zip(path, symbols, strict=True))
        for label in range(3):
            joint[label] += emitted * math.prod(transitions[label, a, b] for a, b in itertools.pairwise(path)) / 4
    return joint


def test_the_models_are_those_of_the_literature_lead() -> None:
    """Lag 2: states 00, 01, 10, 11 of the bits before and now."""
    expected = [
        [[0.9, 0.1, 0, 0], [0, 0, 0.9, 0.1], [0.1, 0.9, 0, 0], [0, 0, 0.1, 0.9]],
        [[0.1, 0.9, 0, 0], [0, 0, 0.1, 0.9], [0.9, 0.1, 0, 0], [0, 0, 0.9, 0.1]],
        [[0.9, 0.1, 0, 0], [0, 0, 0.1, 0.9], [0.1, 0.9, 0, 0], [0, 0, 0.9, 0.1]],
    ]
    np.testing.assert_allclose(task_of().transitions(), expected, atol=1e-12)
    zero, one = [0.5, 0.35, 0.1, 0.05], [0.05, 0.1, 0.35, 0.5]
    np.testing.assert_allclose(task_of().emissions(), [zero, one, zero, one])


@pytest.mark.parametrize("reliability", [0.5, 0.7, 0.9, 1.0])
def test_every_class_shows_every_symbol_equally_often(reliability: float) -> None:
    task = task_of(f"data.reliability={reliability}")
    transitions = task.transitions()
    # Doubly stochastic: the uniform distribution is stationary, and every sequence starts in it.
    np.testing.assert_allclose(transitions.sum(axis=2), 1)
    np.testing.assert_allclose(transitions.sum(axis=1), 1)
    sequences = task.generate(0, "train", np.arange(30_000))
    for label in range(3):
        chosen = sequences.features[sequences.classes == label, :20]
        # At each step, and so on the whole: means of 10,000 zeros and ones.
        np.testing.assert_allclose(chosen.mean(axis=0), 0.275 * np.ones((20, 4)) + [0, -0.05, -0.05, 0], atol=0.025)


@pytest.mark.parametrize("overrides", [[], ["data.reliability=0.6"], ["data.emission=[0.8,0.2]"]])
def test_the_posterior_agrees_with_a_sum_over_all_hidden_paths(overrides: list[str]) -> None:
    task = task_of("data.min_length=1", "data.max_length=6", *overrides)
    sequences = task.generate(1, "test", np.arange(60))
    expected = []
    for features, length in zip(sequences.features, sequences.lengths, strict=True):
        likelihood = joint_of(task, features[:length].argmax(axis=1).tolist())
        expected.append(likelihood / likelihood.sum())
    np.testing.assert_allclose(task.posterior(sequences.features, sequences.lengths), expected, atol=1e-12)


def test_padding_and_order_change_no_posterior() -> None:
    task = task_of()
    sequences = task.generate(0, "val", np.arange(50))
    posterior = task.posterior(sequences.features, sequences.lengths)
    padded = np.pad(sequences.features, ((0, 0), (0, 7), (0, 0)), constant_values=1.0)[::-1]
    np.testing.assert_allclose(task.posterior(padded, sequences.lengths[::-1]), posterior[::-1], atol=1e-12)


def test_the_ceiling_is_what_the_best_classifier_reaches() -> None:
    task = task_of()
    assert task.ceiling() == pytest.approx(0.9006, abs=0.003)
    sequences = task.generate(0, "test", np.arange(20_000))
    answers = task.posterior(sequences.features, sequences.lengths).argmax(axis=1)
    # Both are means: four standard errors of the difference.
    assert (answers == sequences.classes).mean() == pytest.approx(task.ceiling(), abs=4 * math.hypot(0.0021, 0.0007))


def test_the_ceiling_is_that_of_a_sum_over_all_sequences_and_paths() -> None:
    task = task_of("data.min_length=2", "data.max_length=5", "data.emission=[0.8,0.2]")
    right = 0.0
    for length in range(2, 6):
        # Three classes and four lengths are equally likely.
        right += sum(joint_of(task, symbols).max() for symbols in itertools.product(range(2), repeat=length)) / 3 / 4
    # The ceiling is a mean over 40,000 sequences.
    assert task.ceiling() == pytest.approx(right, abs=0.004)


def test_the_ceiling_falls_to_chance_with_reliability() -> None:
    ceilings = [task_of(f"data.reliability={value}").ceiling() for value in (0.5, 0.7, 0.9, 1.0)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] == pytest.approx(1 / 3)
    # Without breaks, classes 0 and 2 both make a sequence of zeros from the start 00: (1/3) (1/4) is lost.
    assert ceilings[-1] == pytest.approx(11 / 12, abs=0.01)


def test_counts_of_symbols_say_nothing() -> None:
    """The least loss of a logistic regression on counts is log 3, for their means are the same in every class."""
    task = task_of()
    learn, judge = task.generate(0, "train", np.arange(30_000)), task.generate(0, "test", np.arange(30_000))
    model = LogisticRegression(max_iter=1000).fit(counts(learn), learn.classes)
    assert log_loss(judge.classes, model.predict_proba(counts(judge))) == pytest.approx(math.log(3), abs=0.01)


def test_a_gru_of_16_units_comes_near_the_ceiling(tmp_path: Path) -> None:
    overrides = ["data=hidden_markov", "data.train_size=128000", "data.test_size=10000", "model.hidden_size=16"]
    overrides += ["optimizer.lr=0.01", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    summary = train(compose(overrides), tmp_path)
    assert summary["ceiling"] - 0.03 < summary["metrics"]["test/accuracy"] < summary["ceiling"] + 0.015


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.reliability=0.4", "must be at least 0.5"),
        ("data.emission=[0.5,0.4]", r"emission=\[0.5, 0.4\]: has the sum 0.9; probabilities have 1"),
        ("data.emission=[1]", "at least 2 values"),
        ("data.min_length=41", "is over data.max_length=40"),
    ],
)
def test_mistakes_are_named(override: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        compose(["data=hidden_markov", override])
