"""The tasks of the studies follow their rules, step by step, and their chance and ceiling are correct."""

import itertools
import math
import textwrap
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grulab.cli import main
from grulab.config.compose import compose
from grulab.config.notes import notes
from grulab.tasks.base import Task
from grulab.tasks.registry import build_task
from grulab.tasks.slots import accuracy_with_bits
from grulab.tasks.step_xor import class_probabilities
from grulab.tasks.word import ELEMENTS

Steps = np.ndarray[Any, np.dtype[np.float32]]

SMALL = {
    "keep": ["data.symbols=3", "data.delay=2", "data.min_delay=1"],
    "word": ["data.max_length=3"],
    "step_xor": ["data.bits=2", "data.max_length=3"],
    "slots": ["data.slots=2", "data.values=2", "data.min_length=4", "data.max_length=5"],
}
QUERIES = ("first", "last", "both")


def task_of(name: str, *overrides: str) -> Task:
    return build_task(compose([f"data={name}", *overrides]).data)


def keep(x: Steps) -> int:
    symbols = x.argmax(1).tolist()
    assert symbols[0] < 8
    assert all(8 <= symbol < 12 for symbol in symbols[1:-1])
    assert symbols[-1] == 12
    return int(symbols[0])


def word(x: Steps) -> int:
    things = list(range(3))
    for element in x.argmax(1):
        things = [ELEMENTS[element][thing] for thing in things]
    return ELEMENTS.index(tuple(things))


def step_xor(x: Steps) -> int:
    assert set(x.flatten().tolist()) <= {-1, 1}
    return sum(int(np.prod(-step)) == -1 for step in x) % 3


def slots(x: Steps) -> int:
    stored: dict[int, int] = {}
    asked = []
    for place, step in enumerate(x):
        slot, value, is_query = step[:8], step[8:12], step[12]
        if is_query:
            assert place in (0, len(x) - 1)
            assert not value.any()
            asked.append(int(slot.argmax()))
        elif step.any():
            assert slot.sum() == value.sum() == 1
            stored[int(slot.argmax())] = int(value.argmax())
    assert sorted(stored) == list(range(8))
    assert len(set(asked)) == len(asked)
    answer = 0
    for slot in asked:
        answer = 4 * answer + stored[slot]
    return answer


RULES: list[tuple[str, list[str], Callable[[Steps], int]]] = [
    ("keep", ["data.delay=7", "data.min_delay=2"], keep),
    ("word", [], word),
    ("step_xor", [], step_xor),
    ("step_xor", ["data.bits=1"], step_xor),
    ("step_xor", ["data.bits=64"], step_xor),
    *(("slots", [f"data.query={query}"], slots) for query in QUERIES),
]


@pytest.mark.parametrize(("name", "overrides", "rule"), RULES)
def test_classes_follow_the_rule(name: str, overrides: list[str], rule: Callable[[Steps], int]) -> None:
    task = task_of(name, *overrides)
    sequences = task.generate(0, "train", np.arange(600))
    for x, length, label in zip(*sequences, strict=True):
        assert task.length_range[0] <= length <= task.length_range[1]
        assert rule(x[:length]) == label
    assert set(sequences.lengths) == set(range(task.length_range[0], task.length_range[1] + 1))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, overrides) for name, overrides in SMALL.items() if name != "slots"),
        *(("slots", [*SMALL["slots"], f"data.query={query}"]) for query in QUERIES),
    ],
)
def test_ceiling_and_chance_are_those_of_a_classifier_that_has_seen_everything(
    name: str, overrides: list[str]
) -> None:
    """A table of all sequences, and of none, with the most frequent class of each entry."""
    task = task_of(name, *overrides)
    sequences = task.generate(0, "train", np.arange(40_000))
    table: defaultdict[bytes, list[int]] = defaultdict(list)
    for x, length, label in zip(*sequences, strict=True):
        table[x[:length].tobytes()].append(int(label))
    assert len(table) < 4000
    right = sum(np.bincount(labels).max() for labels in table.values())
    assert right / len(sequences.classes) == task.ceiling() == 1
    counts = np.bincount(sequences.classes, minlength=task.num_classes)
    # Four standard errors, and what the largest of several counts is above the mean.
    assert counts.max() / len(sequences.classes) == pytest.approx(task.chance, abs=0.012)


@pytest.mark.parametrize("name", ["keep", "slots", "step_xor", "word"])
def test_the_drawn_example_is_a_sequence_of_the_task(name: str) -> None:
    numbers = {"keep": 0, "slots": 7, "step_xor": 32, "word": 13}
    own = ["data.slots=4", "data.values=3", "data.min_length=8", "data.max_length=8"] if name == "slots" else []
    task = task_of(name, *own)
    (x,), _, (label,) = task.generate(0, "train", np.array([numbers[name]]))
    drawn = textwrap.dedent(str(type(task).__doc__))
    assert f"Training sequence {numbers[name]}" in drawn
    if name == "keep":
        line = " ".join("01234567abcd."[symbol] for symbol in x.argmax(1))
    elif name == "word":
        line = "factors   " + " ".join(map(str, x.argmax(1)))
    elif name == "step_xor":
        line = "bits      " + " ".join("".join("-+"[int(bit > 0)] for bit in step) for step in x)
    else:
        letters = ["abcd"[step[:4].argmax()] if step[:4].any() else "-" for step in x]
        ends = ["?" if step[-1] else str(step[4:7].argmax()) if step[4:7].any() else "" for step in x]
        line = " ".join(letter + end for letter, end in zip(letters, ends, strict=True))
    assert line in drawn
    assert f"class {label}\n" in drawn


@pytest.mark.parametrize(("slots", "values", "bits"), [(2, 2, 0), (2, 2, 1), (2, 2, 2), (3, 2, 1), (2, 3, 1)])
def test_no_code_is_better_than_the_bound(slots: int, values: int, bits: int) -> None:
    """Every way to keep so many bits of all values, each with the best answers."""
    contents = list(itertools.product(range(values), repeat=slots))
    best = 0
    for code in itertools.product(range(2**bits), repeat=len(contents)):
        right = 0
        for kept in range(2**bits):
            members = np.array([content for content, own in zip(contents, code, strict=True) if own == kept])
            for column in members.T if len(members) else []:
                right += np.bincount(column).max()
        best = max(best, right)
    accuracy = best / (slots * len(contents))
    bound = accuracy_with_bits(bits, slots, values)
    assert accuracy <= bound + 1e-9
    if bits in (0, slots * np.log2(values)):
        assert accuracy == pytest.approx(bound)


@given(st.floats(0, 40), st.integers(1, 20), st.integers(2, 20))
def test_the_bound_solves_its_equation(bits: float, slots: int, values: int) -> None:
    p = accuracy_with_bits(bits, slots, values)
    if bits >= slots * np.log2(values):
        assert p == pytest.approx(1)
    else:
        entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
        assert slots * (np.log2(values) - entropy - (1 - p) * np.log2(values - 1)) == pytest.approx(bits, abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data=slots", "data.query=both", "data.min_length=9"],
            "data.min_length=9: data.slots=8 with data.query=both",
        ),
        (["data=keep", "data.min_delay=30"], "data.min_delay=30: is over data.delay=20"),
        (["data=step_xor", "data.bits=65"], "data.bits=65"),
        (["data=word", "data.min_length=9"], "data.min_length=9: is over data.max_length=8"),
    ],
)
def test_impossible_sizes_are_refused(overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *overrides]) == 2
    assert message in capsys.readouterr().err


def test_classes_that_are_not_counted_are_not_weighed() -> None:
    found = notes(compose(["data=step_xor", "model.class_weights=balanced"]))
    assert found == ["model.class_weights=balanced has no effect with data=step_xor, whose classes are not counted"]


@pytest.mark.parametrize(("shortest", "longest"), [(1, 8), (1, 1), (90, 130), (300, 310), (1, 10**9)])
def test_the_chance_of_any_length_is_quickly_known(shortest: int, longest: int) -> None:
    found = class_probabilities(shortest, longest)
    assert found.sum() == pytest.approx(1)
    if longest < 400:
        # Of n steps, a binomial number is odd.
        expected = np.zeros(3)
        for steps in range(shortest, longest + 1):
            for odd in range(steps + 1):
                expected[odd % 3] += math.comb(steps, odd) / 2**steps
        assert found == pytest.approx(expected / expected.sum())
    else:
        assert found == pytest.approx([1 / 3] * 3, abs=1e-6)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_no_sequences_are_no_error(name: str) -> None:
    task = task_of(name)
    assert len(task.generate(0, "train", np.arange(0)).classes) == 0
