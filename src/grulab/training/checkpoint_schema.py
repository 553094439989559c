"""The schema of a checkpoint: the keys, types, shapes and ranges that a run with this configuration writes.

torch.load with ``weights_only=True`` executes no code, but it accepts tensors of any shape and stride, and PyTorch's
fused optimizers read memory by the shapes of the weights without a check. So everything that a resume takes from a
checkpoint is compared with a template of the same configuration first.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grulab.config.parameter_budget import count_parameters, parameter_count
from grulab.config.same_run import what_differs
from grulab.config.schema import Config
from grulab.internals.lightning import loops_of_new_trainer
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import KEY, load
from grulab.run_folder.metrics_csv import COLUMNS
from grulab.system.printable import printable
from grulab.tasks.base import Task
from grulab.tasks.registry import build_task
from grulab.training.build import build_module
from grulab.training.callbacks.checkpointing import Checkpointer
from grulab.training.callbacks.epoch_log import EpochLog
from grulab.training.callbacks.rng_state import RNGState
from grulab.training.module import SUMS, SequenceClassifier
from grulab.training.stored_task import StoredTask

# Lightning counts in Python integers, PyTorch in 64 bits.
_LARGEST = 2**62
_WHOLE_NUMBERS = ("epoch", "step")
# Weights and two moments of 64 bits; the room is for the rest, such as the rows of the epochs.
_BYTES_PER_PARAMETER = 24
_ROOM = 2**28
_MAX_CHARACTERS = 300


def load_checked(path: Path, config: Config) -> dict[str, Any]:
    """Load a checkpoint of a run with this configuration.

    Raises:
        As :func:`load` and :func:`check_checkpoint`.
    """
    content = load(path, max_bytes=_ROOM + _BYTES_PER_PARAMETER * parameter_count(config))
    check_checkpoint(path, content, config)
    return content


def check_checkpoint(
    path: Path, content: Mapping[str, Any], config: Config, stored_task: StoredTask | None = None
) -> None:
    """Check that a checkpoint of a run holds what the run itself would write; one of another run is not looked at.

    Args:
        path: of the checkpoint.
        content: of the file.
        config: of the run.
        stored_task: the task as the checkpoint has it, if that is to be used; None for the one of the configuration.

    Raises:
        DamagedCheckpointError: naming the first entry that is missing, of another type or shape, or out of range.
    """
    try:
        template = {"config": {}, "epochs": 0, "batches": 0, "task": {}}
        _compare(KEY, template, content.get(KEY), skip=("config", "task"))
        if not isinstance(content[KEY]["config"], dict):
            raise _OddError("config", "is no group of keys")
        if what_differs(content[KEY]["config"], config.to_dict()):
            return
        task = stored_task or build_task(config.data)
        key = _first_difference(_expected(task, content), content[KEY]["task"]) if isinstance(task, Task) else None
        if key is not None:
            raise _OddError(f"task.{key}".rstrip("."), "is not that of its configuration")
        # Before a module of a claimed size is built.
        parameters = count_parameters(
            task.num_features,
            config.model.hidden_size,
            config.model.num_layers,
            task.num_classes,
            config.model.bidirectional,
        )
        if 4 * parameters > path.stat().st_size:
            raise _OddError("state_dict", f"does not have the {parameters:,} parameters of its configuration")
        _check(content, config, task)
    except _OddError as odd:
        raise DamagedCheckpointError(f"{path}: is damaged: {odd}") from None


class _OddError(Exception):
    """An entry of a checkpoint is not as it should be."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(printable(f"{key.lstrip('.')} {what}"[:_MAX_CHARACTERS]))


def _expected(task: Task, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the checkpoint should tell of its task.

    The same sequences may be in a file of another form, which has other names for its features, or none.
    """
    expected, found = task.metadata(), content[KEY]["task"]
    names = found.get("features") if isinstance(found, Mapping) else None
    if "features" in expected and isinstance(names, list) and all(type(name) is str for name in names):
        expected["features"] = names if len(names) == len(expected["features"]) else expected["features"]
    return expected


def _first_difference(expected: Any, found: Any) -> str | None:
    """Return the key of the first of nested plain values that differs; None if none does."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *map(str, found)}):
            if (rest := _first_difference(expected.get(key), found.get(key))) is not None:
                return f"{key}.{rest}".rstrip(".")
        return None
    return None if type(expected) is type(found) and expected == found else ""


def _check(content: Mapping[str, Any], config: Config, task: Task | StoredTask) -> None:
    module = build_module(config, task)
    epochs = content[KEY]["epochs"]
    steps = content.get("global_step")
    hyper_parameters = SequenceClassifier.CHECKPOINT_HYPER_PARAMS_KEY
    template = {
        "epoch": 0,
        "global_step": 0,
        "state_dict": module.state_dict(),
        "loops": loops_of_new_trainer(),
        "optimizer_states": [_optimizer_state(module, has_stepped=steps != 0)],
        SUMS: module.train_metrics.sums(),
    }
    for key, part in template.items():
        _compare(key, part, content.get(key))
    _refuse_nan(content)
    version = content.get("pytorch-lightning_version")
    if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\w+)*", version):
        raise _OddError("pytorch-lightning_version", "is no version")
    _equal(hyper_parameters, dict(module.hparams), content.get(hyper_parameters), but=("backend", "sequences"))
    (group,) = module.configure_optimizers().state_dict()["param_groups"]
    _equal("param_groups", group, content["optimizer_states"][0]["param_groups"][0], but=("lr", "fused"))
    names = (RNGState.__name__, EpochLog.__name__, Checkpointer.__name__)
    _compare("callbacks", dict.fromkeys(names), content.get("callbacks"))
    rng, log, best = (content["callbacks"][name] for name in names)
    _check_rng(rng)
    _check_rows(log, epochs)
    _check_best(best, epochs)


def _optimizer_state(module: SequenceClassifier, has_stepped: bool) -> dict[str, Any]:
    """Return the state of Adam after a step, or before the first one."""
    state = module.configure_optimizers().state_dict()
    if has_stepped:
        state["state"] = {
            index: {"step": torch.zeros(()), "exp_avg": weight.detach(), "exp_avg_sq": weight.detach()}
            for index, weight in enumerate(module.parameters())
        }
    return state


def _compare(key: str, expected: Any, found: Any, skip: tuple[str, ...] = ()) -> None:
    """Compare the structure of two nested values: keys, lengths, types, shapes; numbers are from 0."""
    if isinstance(expected, Tensor):
        _compare_tensor(key, expected, found)
    elif isinstance(expected, Mapping):
        if not isinstance(found, dict):
            raise _OddError(key, "is missing" if found is None else "is no group of keys")
        if odd := sorted(map(str, expected.keys() ^ found.keys())):
            raise _OddError(
                f"{key}.{odd[0]}", "is missing" if odd[0] in map(str, expected) else "is none of its keys"
            )
        for name, value in expected.items():
            if name not in skip:
                _compare(f"{key}.{name}", value, found[name])
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            raise _OddError(key, f"is no list of {len(expected)} values")
        for index, value in enumerate(expected):
            _compare(f"{key}[{index}]", value, found[index])
    elif type(expected) is int:
        if type(found) is not int or not 0 <= found < _LARGEST:
            raise _OddError(key, "is no whole number from 0")
    elif type(expected) is float:
        if type(found) is not float or not math.isfinite(found):
            raise _OddError(key, "is no finite number")
    elif type(expected) is bool and type(found) is not bool:
        raise _OddError(key, "is neither true nor false")


def _compare_tensor(key: str, expected: Tensor, found: Any) -> None:
    if type(found) is not Tensor:
        raise _OddError(key, "is no tensor")
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        raise _OddError(
            key,
            f"has the type {found.dtype} and the shape {tuple(found.shape)}, "
            f"not {expected.dtype} and {tuple(expected.shape)}",
        )
    if found.layout != torch.strided or not found.is_contiguous() or found.device.type != "cpu":
        raise _OddError(key, "has a memory layout that no run writes")


def _refuse_nan(content: Mapping[str, Any]) -> None:
    """Refuse numbers with which no run goes on: its next loss would be NaN.

    A moment of Adam may be infinite after a huge gradient: then its weight stays as it is.
    """
    numbers = dict(content["state_dict"]) | dict(content[SUMS])
    for index, state in content["optimizer_states"][0]["state"].items():
        numbers |= {f"optimizer_states[0].state.{index}.{name}": value for name, value in state.items()}
    for key, value in numbers.items():
        tensor = torch.as_tensor(value)
        is_moment = "exp_avg" in key
        if bool(tensor.isnan().any()) or not (is_moment or bool(tensor.isfinite().all())):
            raise _OddError(key, "is not a finite number, which a diverged training leaves too")


def _equal(section: str, expected: Mapping[str, Any], found: Any, but: tuple[str, ...]) -> None:
    """Compare two groups of plain values, except some keys that may differ."""
    if not isinstance(found, dict) or expected.keys() != found.keys():
        raise _OddError(section, "has other keys than a run writes")
    for key, value in expected.items():
        if key not in but and (type(found[key]) is not type(value) or found[key] != value):
            raise _OddError(f"{section}.{key}", f"is {found[key]!r:.40}, not {value!r}")


def _check_rows(state: Any, epochs: int) -> None:
    rows = state.get("rows") if isinstance(state, dict) and state.keys() == {"rows"} else None
    if not isinstance(rows, list) or len(rows) != epochs:
        raise _OddError("rows", f"does not have the {epochs} epochs that are done")
    for index, row in enumerate(rows):
        _compare(f"rows[{index}]", {name: 0 if name in _WHOLE_NUMBERS else 0.0 for name in COLUMNS}, row)


def _check_best(state: Any, epochs: int) -> None:
    template = {"best_score": 0.0, "best_loss": 0.0, "best_epoch": 0, "best_step": 0}
    if not isinstance(state, dict) or state.keys() != template.keys():
        raise _OddError("Checkpointer", "has other keys than a run writes")
    if all(value is None for value in state.values()) and epochs == 0:
        return
    _compare("Checkpointer", template, state)
    if not 1 <= state["best_epoch"] <= epochs:
        raise _OddError("Checkpointer.best_epoch", f"is none of the {epochs} epochs that are done")


def _check_rng(state: Any) -> None:
    template = RNGState().state_dict()
    if not isinstance(state, dict) or state.keys() != template.keys():
        raise _OddError("RNGState", "has other keys than a run writes")
    for name in ("python", "numpy", "torch"):
        expected = template[name]
        found = state[name]
        if name == "python" and isinstance(found, list) and len(found) == 3:
            # The second of a pair of Gaussian draws, if one is kept.
            expected = [*expected[:2], found[2] if found[2] is None else 0.0]
        _compare(f"RNGState.{name}", expected, found)
    if not isinstance(state["cuda"], list):
        raise _OddError("RNGState.cuda", "is no list")
    for index, found in enumerate(state["cuda"]):
        if type(found) is not Tensor or found.dtype != torch.uint8 or found.dim() != 1 or not found.is_contiguous():
            raise _OddError(f"RNGState.cuda[{index}]", "is no state of a generator")
    words, position = state["python"][1], state["numpy"][2]
    if state["numpy"][0] != template["numpy"][0] or position > len(state["numpy"][1]) or words[-1] > len(words) - 1:
        raise _OddError("RNGState", "is no state of a generator")
    for name, values in (("python", words), ("numpy", state["numpy"][1])):
        if bool(((values < 0) | (values >= 2**32)).any()):
            raise _OddError(f"RNGState.{name}", "holds numbers of more than 32 bits")
