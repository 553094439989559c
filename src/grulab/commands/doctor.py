"""``grulab doctor``: what this machine can do, checked."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from grulab.commands.argument_parser import ArgumentParser
from grulab.doctor.diagnosis import Diagnosis, diagnose, path_of_auto, shown_rate
from grulab.report.sections import Section, print_sections, report_console
from grulab.run_folder.paths import OUTPUTS


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab doctor ARGUMENTS``; exit with 1 if something that default settings would use is wrong."""
    parser = ArgumentParser(
        prog="grulab doctor",
        description="Check this machine in some 20 seconds: its parts, and what each device computes and how fast.",
        epilog="It ends with 1 if something that a run with default settings would use is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print everything that was found as JSON")
    options = parser.parse_args(arguments)
    found = diagnose(OUTPUTS if OUTPUTS.is_dir() else Path())
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_sections(_sections(found), report_console())
        print()
        for line in found.wrong:
            print(f"wrong   {line}")
        print(found.advice or "No device computes what it should.")
    if found.wrong:
        raise SystemExit(1)


def _sections(found: Diagnosis) -> list[Section]:
    machine = pd.DataFrame(
        [{"part": one.part, "found": one.found, "verdict": one.problem or "good"} for one in found.machine]
    )
    checks = pd.DataFrame([row for device in found.devices for row in _check_rows(device)])
    speeds = pd.DataFrame([row for device in found.devices for row in _speed_rows(device)])
    sections = [
        Section("Machine", "What a run or a sweep needs.", machine),
        Section(
            "What devices compute",
            "Logits and gradients of GRUs with 1 to 3 layers, one and two directions, against the CPU in 64 bits: "
            "the norm of the difference over the norm, the largest of all models. A star: default settings use it.",
            checks,
        ),
    ]
    if len(speeds):
        text = "Training steps a second in 32-true, one thread, one layer: steps of a sequence x units, batch."
        sections.append(Section("How fast", text, speeds))
    return sections


def _check_rows(device: dict[str, Any]) -> list[dict[str, str]]:
    name = f"{device['device']} {device.get('name', '')}".strip()
    if "problem" in device:
        return [_row(name, "", "", {}, device["problem"])]
    rows = []
    for check in device["checks"]:
        is_usual = check["precision"] == "32-true" and check["path"] == path_of_auto(device)
        path = check["path"] + " *" * is_usual
        rows.append(_row(name, path, check["precision"], check.get("errors", {}), check["problem"] or "right"))
    if device["waits"] is not None:
        rows.append(_row(name, "", "32-true", {}, f"waits: {device['waits']}" if device["waits"] else "never waits"))
    return rows


def _row(device: str, path: str, precision: str, errors: dict[str, float | None], verdict: str) -> dict[str, str]:
    words = dict.fromkeys(("logits", "gradients", "weight"), "")
    words |= {name: "nan" if error is None else f"{error:.0e}" for name, error in errors.items()}
    return {"device": device, "computed by": path, "precision": precision, **words, "verdict": verdict}


def _speed_rows(device: dict[str, Any]) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for speed in device.get("speeds", []):
        steps, hidden_size, batch = speed["size"]
        row = rows.setdefault(speed["path"], {"device": device["device"], "computed by": speed["path"]})
        row[f"{steps} x {hidden_size}, {batch}"] = shown_rate(speed["steps_per_second"])
    return list(rows.values())
