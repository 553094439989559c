"""A checkpoint with a valid checksum may still hold anything: each odd entry is damage, by name."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from grulab import compose, resume, train
from grulab.config.schema import Config
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import load
from grulab.training.checkpoint_schema import check_checkpoint
from tests.conftest import SMALL, Start, forked, reseal

# Entries that a resume does not read, or for which several values are right.
FREE = (
    ".pytorch-lightning_version",
    ".hparams_name",
    ".lr_schedulers",
    ".hyper_parameters.backend",
    ".hyper_parameters.sequences",
    ".grulab.config",
)
# Numbers that may be any.
ANY_NUMBER = ("seconds", "lr", "loss", "accuracy", "best_score", "best_loss", "best_step", "step", ".seed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the last checkpoint of a small run with two layers and two directions, and its content."""
    folder = tmp_path_factory.mktemp("run")
    train(compose([*SMALL, "model.num_layers=2", "model.bidirectional=true"]), folder)
    path = folder / "checkpoints" / "last.ckpt"
    return path, load(path)


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every entry, groups included."""
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from leaves(part, f"{key}.{index}")


def with_entry(content: dict[str, Any], key: str, change: Callable[[Any], Any] | None) -> dict[str, Any]:
    """Return a copy in which one entry is changed, or removed."""
    changed = copy.deepcopy(content)
    place: Any = changed
    *sections, last = split(content, key)
    for section in sections:
        if isinstance(place[section], tuple):
            place[section] = list(place[section])
        place = place[section]
    if change is None:
        del place[last]
    else:
        place[last] = change(place[last])
    return changed


def split(content: Any, key: str) -> list[Any]:
    """Return the keys of an entry; names may have dots."""
    path, rest = [], key[1:]
    while rest:
        names = list(content) if isinstance(content, dict) else [str(index) for index in range(len(content))]
        name = max((n for n in names if rest == str(n) or rest.startswith(f"{n}.")), key=lambda n: len(str(n)))
        path.append(name if isinstance(content, dict) else int(name))
        content = content[path[-1]]
        rest = rest[len(str(name)) + 1 :]
    return path


def mutations(value: Any) -> Iterator[tuple[str, Callable[[Any], Any] | None]]:
    """Yield what an attacker would do to an entry: a name, and the change."""
    yield "removed", None
    yield "retyped", lambda _: "text" if not isinstance(value, str) else 3
    if isinstance(value, torch.Tensor):
        yield (
            "of another type",
            lambda tensor: tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.int8),
        )
        yield "reshaped", lambda tensor: torch.zeros(1, dtype=tensor.dtype).reshape((1,) * (tensor.dim() + 1))
        if value.dim():
            yield "empty", lambda tensor: tensor[:0].clone()
        if value.numel() > 1:
            yield "expanded", lambda tensor: torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)
            yield "huge", lambda tensor: torch.zeros(1, dtype=tensor.dtype).expand(10**9, *tensor.shape[1:])
        if value.dim() == 2 and min(value.shape) > 1:
            yield "transposed", lambda tensor: tensor.t().contiguous().t()
    if isinstance(value, list):
        yield "longer", lambda values: [*values, *values, 7]
    if isinstance(value, dict):
        yield "with more", lambda group: group | {"more": 1}
    if type(value) is int:
        yield "negative", lambda _: -1
        yield "too large", lambda _: 2**70
    if type(value) is float:
        yield "not finite", lambda _: float("nan")


def refusal(path: Path, content: dict[str, Any], config: Config) -> str:
    """Return what is wrong with a checkpoint, in words; "" if nothing is."""
    try:
        check_checkpoint(path, content, config)
    except DamagedCheckpointError as error:
        return str(error)
    return ""


def test_every_odd_entry_is_damage_by_name(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    config = compose([*SMALL, "model.num_layers=2", "model.bidirectional=true"])
    check_checkpoint(path, content, config)
    checked = 0
    for key, value in leaves(content):
        if not key or key.startswith(FREE):
            continue
        for name, change in mutations(value):
            if isinstance(value, type(None)) and name == "retyped":
                continue
            odd = with_entry(content, key, change)
            told = refusal(path, odd, config)
            assert re.search(r"last.ckpt: is damaged: \S+ \S+", told), f"{key} {name} was accepted"
            checked += 1
    assert checked > 500


def test_a_checkpoint_of_another_run_is_left_to_its_own_refusal(checkpoint: tuple[Path, dict[str, Any]]) -> None:
    path, content = checkpoint
    check_checkpoint(path, content, compose([*SMALL, "model.hidden_size=99"]))


@pytest.mark.parametrize("shape", ["(1,)", "expanded"])
def test_an_optimizer_state_of_another_shape_crashes_nothing(
    shape: str, stopped: Path, start: Start, tmp_path: Path
) -> None:
    """Fused Adam reads by the shapes of the weights: a resume died of SIGSEGV, or took 23 GB."""
    for path in (stopped / "checkpoints").glob("*.ckpt"):
        content = load(path)
        for state in content["optimizer_states"][0]["state"].values():
            size = state["exp_avg"].shape
            state["exp_avg"] = torch.zeros(1) if shape == "(1,)" else torch.zeros(1).expand(size)
        reseal(path, content)
    process = forked(tmp_path, "resume", str(stopped))
    assert process.returncode == 1
    assert process.stderr.startswith("grulab: DamagedCheckpointError: ")
    assert ".exp_avg has " in process.stderr


def test_a_malformed_last_checkpoint_is_stepped_over(stopped: Path, start: Start, tmp_path: Path) -> None:
    from experiments.exact_resume.harness import differences

    expected = start("expected")
    last = stopped / "checkpoints" / "last.ckpt"
    content = load(last)
    content["callbacks"]["EpochLog"]["rows"].append({"epoch": 9})
    reseal(last, content)
    resume(stopped)
    assert (stopped / "checkpoints" / "last-damaged.ckpt").exists()
    assert differences(expected, stopped) == []
