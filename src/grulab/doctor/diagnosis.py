"""The findings about a machine and its devices, and what follows from them."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grulab.doctor.machine import Finding, examine
from grulab.kernels.backend import layout_on

# A device of the slowest kind takes ten seconds, and the import of torch as long on some disks.
_SECONDS = 300
# A device that is this much faster is worth another trainer=.
_FASTER = 1.2
# Without -P, Python would import json.py or torch.py from the folder in which it is started.
_NAMES = (sys.executable, "-P", "-m", "grulab.doctor.device_names")
_REPORT = (sys.executable, "-P", "-m", "grulab.doctor.device_report")
_MODELS = {
    "kernels": "model.backend=fused model.sequences=packed",
    "packed": "model.backend=torch model.sequences=packed",
    "padded": "model.sequences=padded",
    "graphs": "model.sequences=padded trainer.cuda_graphs=true",
}
_TRAINERS = {"cpu": "trainer=cpu", "cuda": "trainer=gpu", "mps": "trainer.accelerator=mps"}


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        machine: its parts.
        devices: of each device what ``device_report.report`` returns, or its name and a problem.
        wrong: a line for each thing that a run with default settings would use and that does not work.
        advice: which ``trainer=`` and ``model=`` to use here; "" if none is right.
    """

    machine: list[Finding]
    devices: list[dict[str, Any]]
    wrong: list[str]
    advice: str


def diagnose(folder: Path) -> Diagnosis:
    """Examine this machine, and check each of its devices in a process of its own.

    Args:
        folder: where the outputs will be.
    """
    machine = list(examine(folder))
    names, _ = _child(_NAMES)
    devices = [_device_report(str(name)) for name in (names if isinstance(names, list) and names else ["cpu"])]
    wrong = [f"{finding.part}: {finding.problem}" for finding in machine if finding.problem and finding.is_needed]
    device = device_of_auto(devices)
    path = path_of_auto(device)
    if why := problem_of(device, path):
        wrong.append(f"{device['device']}, {path}: {why}")
    if device.get("waits"):
        wrong.append(f"{device['device']}: a step waits for the device: {device['waits']}")
    return Diagnosis(machine, devices, wrong, advice(devices))


def device_of_auto(devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the device that ``trainer.accelerator=auto`` takes."""
    cuda = [device for device in devices if kind_of(device) == "cuda"]
    mps = [device for device in devices if kind_of(device) == "mps" and not problem_of(device, "padded")]
    return [*cuda, *mps, *devices][0]


def path_of_auto(device: dict[str, Any]) -> str:
    """Return what computes with ``model.backend=auto`` and ``model.sequences=auto`` on a device in 32 bits."""
    paths = {check["path"] for check in device.get("checks", [])}
    return "kernels" if "kernels" in paths else layout_on(kind_of(device), "auto", is_mixed=False)


def problem_of(device: dict[str, Any], path: str) -> str:
    """Return what is wrong with a way of computing in 32 bits on a device; "" if it is right."""
    if "problem" in device:
        return str(device["problem"])
    checks = [check for check in device["checks"] if (check["precision"], check["path"]) == ("32-true", path)]
    return str(checks[0]["problem"]) if checks else "was not checked"


def kind_of(device: dict[str, Any]) -> str:
    """Return "cpu", "cuda" or "mps"."""
    return str(device["device"]).partition(":")[0]


def advice(devices: Sequence[dict[str, Any]]) -> str:
    """Return which ``trainer=`` and ``model=`` to use at each size: the default ones, or others that are faster."""
    speeds = [
        (tuple(speed["size"]), speed["steps_per_second"], _setting(device, speed["path"]))
        for device in devices
        for speed in device.get("speeds", [])
    ]
    if not speeds:
        return ""
    words: list[str] = []
    usual = device_of_auto(devices)
    chosen = _setting(usual, path_of_auto(usual))
    for size in dict.fromkeys(speed[0] for speed in speeds):
        own = {setting: rate for of, rate, setting in speeds if of == size}
        fastest = max(own, key=lambda setting: own[setting])
        if chosen in own and own[fastest] < _FASTER * own[chosen]:
            fastest = chosen
        if fastest == chosen and words:
            continue
        chosen, rate = fastest, own[fastest]
        where = f"{size[1]} units over {size[0]} steps"
        speed = f"{shown_rate(rate)} steps a second"
        words.append(f"from {where} on {chosen} ({speed})" if words else f"{chosen} ({where}: {speed})")
    return f"Use {'; '.join(words)}."


def shown_rate(rate: float) -> str:
    """Return a number of steps a second, with a digit after the point if it is small."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _setting(device: dict[str, Any], path: str) -> str:
    """Return the overrides that select a device and what computes on it."""
    kind, _, index = str(device["device"]).partition(":")
    trainer = _TRAINERS[kind] + (f" trainer.devices=[{index}]" if index not in ("", "0") else "")
    if path == path_of_auto(device):
        return f"{trainer} model=gru"
    return f"{trainer} {_MODELS[path]}"


def _device_report(device: str) -> dict[str, Any]:
    found, problem = _child([*_REPORT, device])
    if isinstance(found, dict) and found.get("device") == device:
        return found
    return {"device": device, "problem": problem}


def _child(command: Sequence[str]) -> tuple[Any, str]:
    """Return what a process prints in its last line, or None; and what is wrong if it is not as expected."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, f"takes over {_SECONDS} seconds to check"
    if process.returncode < 0:
        name = signal.strsignal(-process.returncode) or f"signal {-process.returncode}"
        return None, f"ends the process that uses it ({name})"
    lines = [*process.stderr.strip().splitlines(), f"its process ended with {process.returncode}"]
    problem = f"cannot be used: {lines[-2 if len(lines) > 1 else -1][:200]}"
    try:
        return json.loads((process.stdout.strip().splitlines() or [""])[-1]), problem
    except ValueError:
        return None, problem
