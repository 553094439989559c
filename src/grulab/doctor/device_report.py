"""Check and time one device, in a process of its own: a device may crash it, or make it useless for a fork.

python -m grulab.doctor.device_report DEVICE
"""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from grulab.data.batch import PaddedBatch
from grulab.kernels import library
from grulab.models.gru import GRUClassifier
from grulab.system.parent_death import end_with_parent
from grulab.training.cuda_graphs import GraphedSteps
from grulab.training.device_check import CLASSES, FEATURES, LIMITS, errors_on, random_batch
from grulab.training.module import SequenceClassifier
from grulab.training.optimizer import make_optimizer

# (steps, units, batch): the default run's, and larger ones.
SIZES = ((10, 8, 32), (100, 64, 32), (100, 256, 64))
_SECONDS = 0.5
_FEWEST_STEPS, _STEPS_BETWEEN_LOOKS = 2, 10
# The last is shorter than the one before, so that its graph finds old values behind its end.
_ROWS_OF_GRAPHS, _LENGTHS_OF_GRAPHS = 16, (20, 33, 20, 33, 19)


def report(device: str) -> dict[str, Any]:
    """Return what a device is, how far off its results are, how many steps it makes a second, and if it waits."""
    torch.set_num_threads(1)
    kind = device.partition(":")[0]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if kind == "cuda":
        # Streams, graphs, random states and what waits for the device are those of the current one.
        torch.cuda.set_device(device)
    checks = [_check(device, *case) for case in _cases(kind)]
    waits = _waits(device, kind)
    speeds = [speed for check in checks for speed in _speeds(device, check)]
    if kind == "cuda":
        # Last: a capture that fails may spoil the process.
        checks.append(_check_graphs(device))
        speeds += _speeds(device, checks[-1])
    return {"device": device, **_about(device, kind), "checks": checks, "speeds": speeds, "waits": waits}


def parts_of(path: str) -> tuple[str, str]:
    """Return the backend and the layout of sequences of "kernels", "packed" or "padded"."""
    return ("fused", "packed") if path == "kernels" else ("torch", path)


def _cases(kind: str) -> list[tuple[str, str]]:
    """Return (precision, path)."""
    precisions = {"cpu": ["32-true", "64-true", "bf16-mixed"], "mps": ["32-true", "16-mixed"]}.get(kind, [*LIMITS])
    kernels = [("32-true", "kernels")] if kind == "cpu" and library.is_built() else []
    return [*kernels, *((precision, path) for precision in precisions for path in ("packed", "padded"))]


def _check(device: str, precision: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"precision": precision, "path": path, "problem": ""}
    try:
        errors = errors_on(device, precision, *parts_of(path))
    except RuntimeError as error:
        # An operator that the device does not have, or not for this type.
        return found | {"problem": f"does not run: {_first_line(error)}"}
    problem = "" if errors.within(LIMITS[precision]) else "is wrong: an error is over its limit"
    # JSON has no NaN.
    numbers = {name: error if math.isfinite(error) else None for name, error in asdict(errors).items()}
    return found | {"problem": problem, "errors": numbers, "limits": asdict(LIMITS[precision])}


def _speeds(device: str, check: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the speed at each size of what has passed a check in 32 bits; a size that does not fit is left out."""
    if check["precision"] != "32-true" or check["problem"]:
        return []
    found = []
    for size in SIZES:
        with suppress(RuntimeError):
            rate = steps_per_second(device, check["path"], *size)
            found.append({"size": list(size), "path": check["path"], "steps_per_second": rate})
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def steps_per_second(device: str, path: str, steps: int, hidden_size: int, batch: int) -> float:
    """Return how many times a second forward, backward and optimizer run, over half a second."""
    if path == "graphs":
        step = _graphed(device, hidden_size, batch, steps)
    else:
        step = _eager(device, path, steps, hidden_size, batch)
    step()
    step()
    _synchronize(device)
    began, count = time.perf_counter(), 0
    while count < _FEWEST_STEPS or time.perf_counter() - began < _SECONDS:
        step()
        count += 1
        if count % _STEPS_BETWEEN_LOOKS == 0:
            # Without it, a device would have to finish what was only queued.
            _synchronize(device)
    _synchronize(device)
    return count / (time.perf_counter() - began)


def _eager(device: str, path: str, steps: int, hidden_size: int, batch: int) -> Callable[[], object]:
    torch.manual_seed(0)
    backend, sequences = parts_of(path)
    model = GRUClassifier(FEATURES, hidden_size, 1, CLASSES, backend=backend, sequences=sequences).to(device)
    optimizer = make_optimizer(model.parameters(), "adam", 1e-3, 0.0, fused=None if device == "mps" else True)
    x, lengths, y = random_batch(batch, steps)
    x, y = x.to(device), y.to(device)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x, lengths), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _graphed(device: str, hidden_size: int, batch: int, steps: int) -> Callable[[], object]:
    torch.manual_seed(0)
    module = SequenceClassifier(FEATURES, hidden_size, 1, CLASSES, sequences="padded").to(device)
    graphs = GraphedSteps(module, make_optimizer(module.parameters(), "adam", 1e-3, 0.0, fused=True), batch, steps)
    on_cpu = PaddedBatch(*random_batch(batch, steps)).pin_memory()
    return lambda: graphs(on_cpu)


def _check_graphs(device: str) -> dict[str, Any]:
    """Compare training with CUDA graphs with the same without: bit for bit, also of dropout."""
    found: dict[str, Any] = {"precision": "32-true", "path": "graphs", "problem": ""}
    try:
        if torch.equal(*(_trained_weights(device, with_graphs) for with_graphs in (True, False))):
            return found
    except RuntimeError as error:
        return found | {"problem": f"does not run: {_first_line(error)}"}
    return found | {"problem": "is wrong: has other bits than the same steps without graphs"}


def _trained_weights(device: str, with_graphs: bool) -> Tensor:
    """Train on batches of several lengths, some of them too small for a graph; return all weights in one tensor."""
    torch.manual_seed(0)
    module = SequenceClassifier(FEATURES, 8, 2, CLASSES, bidirectional=True, dropout=0.3, sequences="padded")
    module = module.to(device).train()
    optimizer = make_optimizer(module.parameters(), "adam", 1e-2, 0.0, fused=True)
    graphs = GraphedSteps(module, optimizer, _ROWS_OF_GRAPHS, max(_LENGTHS_OF_GRAPHS))
    for steps in _LENGTHS_OF_GRAPHS:
        for rows in (_ROWS_OF_GRAPHS, _ROWS_OF_GRAPHS, _ROWS_OF_GRAPHS - 1):
            batch = PaddedBatch(*random_batch(rows, steps)).pin_memory()
            if with_graphs and rows == _ROWS_OF_GRAPHS:
                graphs(batch)
                continue
            optimizer.zero_grad()
            module.training_step(batch.lengthened().to(device), 0).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])


def _synchronize(device: str) -> None:
    if device != "cpu":
        getattr(torch, device.partition(":")[0]).synchronize()


def _waits(device: str, kind: str) -> str | None:
    """Return what waits for the device in a step; "" if nothing does; None where that cannot be found out."""
    if kind != "cuda":
        return None
    x, lengths, y = (part.pin_memory() for part in random_batch(32, 10))
    model = GRUClassifier(FEATURES, 8, 2, CLASSES, bidirectional=True, dropout=0.1).to(device)
    optimizer = make_optimizer(model.parameters(), "adam", 1e-3, 0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(x.to(device, non_blocking=True), lengths)
        functional.cross_entropy(logits, y.to(device, non_blocking=True)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    try:
        # cuDNN initializes at the first call.
        step()
        torch.cuda.set_sync_debug_mode("error")
        step()
    except RuntimeError as error:
        return _first_line(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _about(device: str, kind: str) -> dict[str, Any]:
    if kind != "cuda":
        return {"name": torch.backends.cpu.get_cpu_capability() if kind == "cpu" else "Metal"}
    index = int(device.partition(":")[2])
    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info()
    major, minor = torch.cuda.get_device_capability(index)
    return {
        "name": torch.cuda.get_device_name(index),
        "capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "memory": total,
        "memory_free": free,
        "has_bf16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def main() -> None:
    """Print the report of the device as JSON in the last line."""
    end_with_parent(os.getppid())
    warnings.simplefilter("ignore")
    (device,) = sys.argv[1:]
    print(json.dumps(report(device)))


if __name__ == "__main__":
    main()
