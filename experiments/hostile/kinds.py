"""Files of a folder that are no files: FIFOs, folders, devices, a terabyte of nothing, links to elsewhere."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from experiments.hostile.sandbox import Case, Outcome, Violation, attack, make_odd
from experiments.hostile.victims import DONE, HALF, STOPPED, files_of, refused_by_name, resumed_run, resumed_sweep

PART = "kinds"
_TERABYTE = 2**40
# What a file is replaced by; "elsewhere" is a link to the same content in somebody else's file.
_KINDS = ("a FIFO", "a folder", "a loop", "/dev/full", "/dev/zero", "a terabyte", "elsewhere", "not readable")
_READ_OF_A_DONE_JOB = ("summary.json", "metrics.csv")


def cases(limit: float, victims: Path) -> list[Case]:
    """Return every file of a stopped run and of a half sweep as each kind, for each command that reads the folder."""
    kinds = [kind for kind in _KINDS if kind != "not readable" or os.geteuid() != 0]
    found: list[Case] = []
    for name, verbs in ((STOPPED, ("resume", "trace")), (HALF, ("resume", "report"))):
        for file in files_of(victims / name):
            if DONE in file.parts and file.name not in _READ_OF_A_DONE_JOB:
                continue
            for kind in kinds:
                for verb in verbs:
                    prepare = partial(_replace, victims / name, file, kind)
                    judge = partial(_judge, victims, verb, name, file)
                    run = partial(attack, [verb, name], prepare, judge, limit=limit)
                    found.append(Case(PART, len(found), f"{verb} {name}: {file} is {kind}", run))
    return found


def _replace(victim: Path, file: Path, kind: str, cwd: Path) -> None:
    shutil.copytree(victim, cwd / victim.name)
    path = cwd / victim.name / file
    outside = cwd.parent / "precious"
    outside.write_bytes(path.read_bytes())
    if kind == "not readable":
        path.chmod(0)
        return
    path.unlink()
    if kind == "a terabyte":
        with path.open("wb") as stream:
            stream.truncate(_TERABYTE)
    else:
        make_odd(path, str(outside) if kind == "elsewhere" else kind)


def _judge(victims: Path, verb: str, name: str, file: Path, folder: Path, outcome: Outcome) -> Iterator[Violation]:
    if verb != "resume":
        yield from refused_by_name(outcome, file.name)
    elif name == STOPPED:
        yield from resumed_run(victims, folder / "cwd" / name, outcome, file.name)
    else:
        yield from resumed_sweep(victims, folder / "cwd" / name, outcome, file)
    if (folder / "precious").read_bytes() != (victims / name / file).read_bytes():
        yield Violation("a file outside the folder was changed", str(file))
