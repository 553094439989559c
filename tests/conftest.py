"""What the tests share: the configurations users run, made small, and no state left behind."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from grulab.composition import compose
from grulab.run import train

# Enough to exercise everything: two full batches, and a last batch of one.
SMALL = [
    "data.train_size=65",
    "data.val_size=33",
    "data.test_size=40",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Put back what Lightning sets for the whole process."""
    environment = dict(os.environ)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that trains a small run in a folder of the test's own: run("name", *overrides)."""

    def start(name: str, *overrides: str) -> dict[str, Any]:
        return train(compose([*SMALL, *overrides]), tmp_path / name)

    return start


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of exact resume run on another device: pytest tests/test_resume.py --accelerator cuda."""
    parser.addoption("--accelerator", default="cpu", help="cpu or cuda")
