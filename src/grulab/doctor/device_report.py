"""Check and time one device, in a process of its own: a device may crash it, or make it useless for a fork.

python -m grulab.doctor.device_report DEVICE
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from grulab.data.batch import PaddedBatch
from grulab.kernels import library
from grulab.models.gru import GRUClassifier
from grulab.training.cuda_graphs import GraphedSteps
from grulab.training.device_check import CLASSES, FEATURES, LIMITS, errors_on, random_batch
from grulab.training.module import SequenceClassifier
from grulab.training.optimizer import make_optimizer

# (steps, units, batch): the default run's, and larger ones.
SIZES = ((10, 8, 32), (100, 64, 32), (100, 256, 64))
_SECONDS = 0.5
_FEWEST_STEPS, _STEPS_BETWEEN_LOOKS, _STEPS_OF_GRAPHS = 2, 10, 5


def report(device: str) -> dict[str, Any]:
    """Return what a device is, how far off its results are, how many steps it makes a second, and if it waits."""
    torch.set_num_threads(1)
    kind = device.partition(":")[0]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    checks = [_check(device, *case) for case in _cases(kind)]
    if kind == "cuda":
        checks.append(_check_graphs(device))
    speeds = [
        {
            "size": list(size),
            "path": check["path"],
            "steps_per_second": steps_per_second(device, check["path"], *size),
        }
        for check in checks
        if check["precision"] == "32-true" and not check["problem"]
        for size in SIZES
    ]
    return {
        "device": device,
        **_about(device, kind),
        "checks": checks,
        "speeds": speeds,
        "waits": _waits(device, kind),
    }


def devices() -> list[str]:
    """Return all devices of this machine: "cpu", "cuda:0", ..., "mps"."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *mps]


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
        return found | {"problem": f"does not run: {str(error).splitlines()[0][:200]}"}
    limits = LIMITS[precision]
    problem = "" if errors.within(limits) else "is wrong: an error is over its limit"
    names = ("logits", "gradients", "weight")
    return found | {
        "problem": problem,
        "errors": {name: getattr(errors, name) for name in names},
        "limits": {name: getattr(limits, name) for name in names},
    }


def steps_per_second(device: str, path: str, steps: int, hidden_size: int, batch: int) -> float:
    """Return how many times a second forward, backward and optimizer run, over half a second."""
    if path == "graphs":
        _, step = _graphed(device, hidden_size, 1, batch, steps)
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


def _graphed(
    device: str, hidden_size: int, layers: int, batch: int, steps: int, with_graphs: bool = True
) -> tuple[SequenceClassifier, Callable[[], object]]:
    """Return a module, and a step that trains it on a batch, as a CUDA graph or without one."""
    torch.manual_seed(0)
    module = SequenceClassifier(FEATURES, hidden_size, layers, CLASSES, layers > 1, sequences="padded").to(device)
    optimizer = make_optimizer(module.parameters(), "adam", 1e-3, 0.0, fused=True)
    graphs = GraphedSteps(module, optimizer, batch, steps)
    on_cpu = PaddedBatch(*random_batch(batch, steps)).pin_memory()

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(on_cpu.lengthened().to(device), 0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return module, (lambda: graphs(on_cpu)) if with_graphs else step


def _check_graphs(device: str) -> dict[str, Any]:
    """Compare the weights after some steps as CUDA graphs with those of the same steps without: bit for bit."""
    found: dict[str, Any] = {"precision": "32-true", "path": "graphs", "problem": ""}
    try:
        for layers in (1, 2):
            weights = []
            for with_graphs in (True, False):
                module, step = _graphed(device, 8, layers, 16, 33, with_graphs)
                for _ in range(_STEPS_OF_GRAPHS):
                    step()
                weights.append(torch.cat([weight.detach().reshape(-1) for weight in module.parameters()]))
            if not torch.equal(*weights):
                return found | {"problem": "is wrong: has other bits than the same steps without graphs"}
    except RuntimeError as error:
        return found | {"problem": f"does not run: {str(error).splitlines()[0][:200]}"}
    return found


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

    # cuDNN initializes at the first call.
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return str(error).splitlines()[0][:200]
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
    """Print the report of the device as JSON; of the CPU, the names of all devices too."""
    warnings.simplefilter("ignore")
    (device,) = sys.argv[1:]
    found = report(device)
    if device == "cpu":
        found["devices"] = devices()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
