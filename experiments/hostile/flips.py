"""A flipped bit, or a missing end, in any file of a folder: exact, or refused by the file's name."""

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from experiments.hostile.sandbox import Case, Outcome, Violation, attack, never
from experiments.hostile.victims import (
    DONE,
    HALF,
    RUN,
    STOPPED,
    files_of,
    refused_by_name,
    resumed_run,
    resumed_sweep,
    trace_of,
)

PART = "flips"
# The victims and the commands that meet them, and how often.
_VICTIMS = {STOPPED: 13, RUN: 5, HALF: 2}
_VERBS = {STOPPED: {"resume": 9, "trace": 1}, RUN: {"resume": 4, "trace": 1}, HALF: {"resume": 1, "report": 1}}
_CUTS = ("nothing", "half", "all but a byte")


def cases(seed: int, count: int, limit: float, victims: Path) -> list[Case]:
    """Return every file cut short in three ways, and then as many flipped bits as ``count``."""
    files = {name: files_of(victims / name) for name in _VICTIMS}
    cuts = [(name, file, cut) for name in files for file in files[name] for cut in _CUTS]
    found = []
    for number in range(len(cuts) + count):
        generator = random.Random(f"{PART} {seed} {number}")
        if number < len(cuts):
            name, file, cut = cuts[number]
            bit, what = None, f"{file} has {cut} left"
        else:
            name = generator.choices(list(_VICTIMS), list(_VICTIMS.values()))[0]
            file = generator.choice([file for file in files[name] if (victims / name / file).stat().st_size])
            cut, bit = None, generator.randrange(8 * (victims / name / file).stat().st_size)
            what = f"bit {bit % 8} of byte {bit // 8} of {file} flipped"
        verb = generator.choices(list(_VERBS[name]), list(_VERBS[name].values()))[0]
        prepare = partial(_spoil, victims / name, file, cut, bit)
        run = partial(attack, [verb, name], prepare, partial(_judge, victims, verb, name, file), limit=limit)
        found.append(Case(PART, number, f"{verb} {name}: {what}", run))
    return found


def _spoil(victim: Path, file: Path, cut: str | None, bit: int | None, cwd: Path) -> None:
    shutil.copytree(victim, cwd / victim.name)
    path = cwd / victim.name / file
    content = bytearray(path.read_bytes())
    if bit is not None:
        content[bit // 8] ^= 1 << bit % 8
    else:
        left = {"nothing": 0, "half": len(content) // 2, "all but a byte": len(content) - 1}
        del content[left[str(cut)] :]
    path.write_bytes(content)


def _judge(victims: Path, verb: str, name: str, file: Path, folder: Path, outcome: Outcome) -> Iterator[Violation]:
    victim = folder / "cwd" / name
    if verb == "resume" and name == HALF:
        yield from resumed_sweep(victims, victim, outcome, file)
    elif verb == "resume":
        # Resuming a run that is done reads its curves no more.
        yield from resumed_run(victims, victim, outcome, file.name, with_curves=name == STOPPED)
    else:
        yield from refused_by_name(outcome, file.name)
        is_table = file.name == "metrics.csv"
        if verb == "trace" and outcome.code == 0 and not is_table and trace_of(victims, name) != _trace(victim):
            yield Violation("other numbers", "trace.md")
    if outcome.code in (1, 2) and not _may_refuse(file, verb) and not any(never(outcome)):
        yield Violation("a file that nobody needs matters", outcome.stderr)


def _trace(victim: Path) -> str:
    return (victim / "trace" / "trace.md").read_text()


def _may_refuse(file: Path, verb: str) -> bool:
    """Return whether a command needs this file, and may refuse it: all others are not read, or made again."""
    if file.suffix == ".ckpt":
        return DONE not in file.parts
    return file.name in ("summary.json", "sweep.json") or (file.name == "metrics.csv" and verb != "resume")
