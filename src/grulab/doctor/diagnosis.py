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
_SECONDS_AT_MOST = 300
# A device that is this much faster is worth another trainer=.
_FASTER = 1.2
# Without -P, Python would import json.py or torch.py from the folder in which it is started.
_COMMAND = (sys.executable, "-P", "-m", "grulab.doctor.device_report")
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
    cpu = _device_report("cpu")
    devices = [cpu, *map(_device_report, cpu.pop("devices", ["cpu"])[1:])]
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
    """Return which ``trainer=`` and ``model=`` are the fastest of those that are right, at each size."""
    speeds = [
        (tuple(speed["size"]), speed["steps_per_second"], device, speed["path"])
        for device in devices
        for speed in device.get("speeds", [])
    ]
    words: list[str] = []
    chosen = ""
    for size in dict.fromkeys(speed[0] for speed in speeds):
        own = [speed for speed in speeds if speed[0] == size]
        best = max(own, key=lambda speed: speed[1])
        usual = [speed for speed in own if _setting(*speed[2:]) == chosen]
        if usual and best[1] < _FASTER * usual[0][1]:
            best = usual[0]
        setting, steps = _setting(*best[2:]), f"{best[1]:,.0f} steps a second" if best[1] >= 10 else f"{best[1]:.1f}"
        if setting != chosen:
            where = f"{size[1]} units over {size[0]} steps"
            words.append(f"{setting} ({where}: {steps})" if not chosen else f"from {where} on {setting} ({steps})")
            chosen = setting
    return f"Use {'; '.join(words)}." if words else ""


def _setting(device: dict[str, Any], path: str) -> str:
    kind, usual = kind_of(device), path_of_auto(device)
    trainer = _TRAINERS[kind] + (f" trainer.devices=[{device['device'].partition(':')[2]}]" if kind == "cuda" else "")
    trainer = trainer.removesuffix(" trainer.devices=[0]")
    if path == usual:
        return f"{trainer} model=gru"
    if path == "graphs":
        return f"{trainer} trainer.cuda_graphs=true model.sequences=padded"
    return f"{trainer} model.sequences={path}" if path == "padded" else f"{trainer} model.backend=torch"


def _device_report(device: str) -> dict[str, Any]:
    try:
        process = subprocess.run(
            [*_COMMAND, device], capture_output=True, text=True, timeout=_SECONDS_AT_MOST, check=False
        )
    except subprocess.TimeoutExpired:
        return {"device": device, "problem": f"takes over {_SECONDS_AT_MOST} seconds to check"}
    if process.returncode < 0:
        return {
            "device": device,
            "problem": f"ends the process that uses it ({signal.Signals(-process.returncode).name})",
        }
    try:
        found: dict[str, Any] = json.loads(process.stdout)
    except ValueError:
        lines = process.stderr.strip().splitlines()
        return {"device": device, "problem": f"cannot be used: {lines[-1][:200] if lines else 'no reason given'}"}
    return found
