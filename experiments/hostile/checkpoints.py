"""Checkpoints with a valid checksum that no run has written: exact, or refused by name; nothing is executed."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from experiments.hostile.sandbox import Case, Outcome, Violation, attack
from experiments.hostile.victims import STOPPED, refused_by_name, resumed_run

PART = "checkpoints"
_ALL = ("last.ckpt", "last-previous.ckpt", "best.ckpt")


def cases(seed: int, count: int, limit: float, victims: Path) -> list[Case]:
    """Return as many changed entries as ``count``, drawn from all entries and changes, then those made by hand."""
    from experiments.hostile import malformed

    from grulab.run_folder.checkpoint_file import load

    content = load(victims / STOPPED / "checkpoints" / "last.ckpt")
    everything = [
        (keys, what, change)
        for keys, value in malformed.leaves(content)
        for what, change in malformed.mutations(value)
    ]
    found = []
    for number in range(count):
        generator = random.Random(f"{PART} {seed} {number}")
        keys, what, change = generator.choice(everything)
        verb = generator.choice(["resume", "resume", "resume", "trace"])
        names = generator.choice([_ALL[:1], _ALL]) if verb == "resume" else _ALL[2:]
        words = f"{'.'.join(map(str, keys))} of {', '.join(names)} {what}"
        found.append(_case(number, verb, words, limit, victims, partial(_change_entry, names, keys, change)))
    for what in malformed.by_hand(Path()):
        for verb in ("resume", "trace"):
            prepare = partial(_make_by_hand, what)
            found.append(_case(len(found), verb, what, limit, victims, prepare))
    return found


def _case(
    number: int, verb: str, what: str, limit: float, victims: Path, spoil: Callable[[Path, Path], None]
) -> Case:
    def prepare(cwd: Path) -> None:
        shutil.copytree(victims / STOPPED, cwd / STOPPED)
        spoil(cwd / STOPPED / "checkpoints", cwd.parent / "canary")

    run = partial(attack, [verb, STOPPED], prepare, partial(_judge, victims, verb), limit=limit)
    return Case(PART, number, f"{verb} {STOPPED}: {what}", run)


def _change_entry(
    names: tuple[str, ...],
    keys: tuple[object, ...],
    change: Callable[[object], object] | None,
    folder: Path,
    canary: Path,
) -> None:
    from experiments.hostile import malformed

    from grulab.run_folder.checkpoint_file import load

    for name in names:
        malformed.seal(folder / name, malformed.with_entry(load(folder / name), keys, change))


def _make_by_hand(what: str, folder: Path, canary: Path) -> None:
    from experiments.hostile import malformed

    malformed.by_hand(canary)[what](folder / _ALL[0])
    for name in _ALL[1:]:
        shutil.copyfile(folder / _ALL[0], folder / name)


def _judge(victims: Path, verb: str, folder: Path, outcome: Outcome) -> Iterator[Violation]:
    if verb == "resume":
        yield from resumed_run(victims, folder / "cwd" / STOPPED, outcome, ".ckpt")
    else:
        yield from refused_by_name(outcome, ".ckpt")
    if (folder / "canary").exists() or (folder / "cwd" / "canary").exists():
        yield Violation("code was executed", f"exit code {outcome.code}")
