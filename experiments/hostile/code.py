"""Folders from a stranger that would run code, or write elsewhere: what lies in a folder is data."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.hostile.sandbox import Case, Outcome, Violation, attack, names
from experiments.hostile.victims import HALF, OPEN, RUN, STOPPED, files_of

PART = "code"
# Changes a folder, a copy of a victim; the second argument is the path of the canary, which the code would make.
Spoil = Callable[[Path, Path], None]


@dataclass(frozen=True)
class _Trap:
    """A folder that would run code: where the code is, the victim, and what it reads.

    Attributes:
        what: where the code is.
        victim: the folder that is changed.
        spoil: changes it.
        verbs: the commands that meet it.
        is_read: whether they read that place at all; if so they have to refuse it.
    """

    what: str
    victim: str
    spoil: Spoil
    verbs: tuple[str, ...] = ("resume",)
    is_read: bool = True


def cases(limit: float, victims: Path) -> list[Case]:
    """Return every trap with each of its commands."""
    found: list[Case] = []
    for trap in _traps():
        for verb in trap.verbs:
            prepare = partial(_spoil, victims / trap.victim, trap.spoil)
            judge = partial(_judge, trap, verb)
            run = partial(attack, [*verb.split(), trap.victim], prepare, judge, limit=limit)
            found.append(Case(PART, len(found), f"{verb} {trap.victim}: {trap.what}", run))
    return found


def _spoil(victim: Path, spoil: Spoil, cwd: Path) -> None:
    shutil.copytree(victim, cwd / victim.name)
    spoil(cwd / victim.name, cwd.parent / "canary")


def _judge(trap: _Trap, verb: str, folder: Path, outcome: Outcome) -> Iterator[Violation]:
    if (folder / "canary").exists():
        yield Violation("code was executed", f"exit code {outcome.code}")
    outside = {name for name in names(folder / "cwd") if Path(name).parts[0] != trap.victim}
    outside -= {"documents", "documents/letter"}
    outside |= {path.name for path in folder.iterdir()} - {"cwd", "out", "err", "torch", "canary"}
    if outside:
        yield Violation("written outside the folder", ", ".join(sorted(outside)[:3]))
    if trap.is_read and verb != "report" and outcome.code == 0:
        yield Violation("a hostile folder is not refused", f"exit code {outcome.code}")
    if not trap.is_read and outcome.code in (1, 2):
        yield Violation("a file that nobody reads matters", outcome.stderr)
    if outcome.code in (1, 2) and len(outcome.mistakes) > 1:
        yield Violation("several lines for a mistake", " / ".join(outcome.mistakes[:3]))


def _overrides(canary: str, folder: str) -> dict[str, list[str]]:
    """Return overrides with which Hydra runs code or writes files: a user may type them, a folder not hold them."""
    copy = f"{{_target_: shutil.copyfile, src: /dev/null, dst: '{canary}'}}"
    handler = f"{{class: logging.FileHandler, filename: '{canary}'}}"
    fields = ["+hydra.launcher.src=/dev/null", f"+hydra.launcher.dst='{canary}'"]
    conf = f"file://{folder}/conf"
    return {
        "a callback": [f"+hydra.callbacks.x={copy}"],
        "a callback, appended": [f"++hydra.callbacks.x={copy}"],
        "all callbacks": [f"hydra.callbacks={{x: {copy}}}"],
        "a callback that is a shell command": [
            f"+hydra.callbacks.x={{_target_: os.system, command: 'touch {canary}'}}"
        ],
        "a launcher": ["hydra/launcher=basic", "hydra.launcher._target_=shutil.copyfile", *fields],
        "a sweeper": [
            "hydra/sweeper=basic",
            "hydra.sweeper._target_=os.system",
            f"+hydra.sweeper.command='touch {canary}'",
        ],
        "a log file of its own": [f"+hydra.job_logging.handlers.x={handler}"],
        "Hydra's log file": [f"+hydra.hydra_logging.handlers.x={handler}"],
        "a group from --config-dir": [f"--config-dir={folder}/conf", "experiment=evil"],
        "a logging factory from --config-dir": [f"--config-dir={folder}/conf", "hydra/job_logging=evil"],
        "a configuration from --config-dir": [f"--config-dir={folder}/conf", "--config-name=evil"],
        "a group from the search path": [f"hydra.searchpath=['{conf}']", "experiment=evil"],
        "callbacks from the search path": [f"hydra.searchpath=['{conf}']", "+hydra/callbacks=evil"],
        "the environment": [f"+hydra.job.env_set.PATH='{folder}/bin'"],
        "the working directory": ["hydra.job.chdir=true", f"+hydra.callbacks.x={copy}"],
        "a folder of jobs elsewhere": ["hydra.sweep.subdir=../elsewhere"],
        "a folder of Hydra elsewhere": ["hydra.output_subdir=../../elsewhere"],
        "swept callbacks": [f'+hydra.sweeper.params={{"+hydra.callbacks.x": "{copy}"}}'],
        "another program": ["--experimental-rerun=evil.pickle"],
        "another configuration path": [f"--config-path={folder}/conf"],
    }


def _write_conf(folder: Path, canary: Path) -> None:
    """Write what the overrides refer to: a configuration folder, and a folder of programs."""
    callback = f"    x:\n      _target_: shutil.copyfile\n      src: /dev/null\n      dst: '{canary}'\n"
    factory = f"    x:\n      (): os.system\n      command: touch '{canary}'\n"
    logs = f"version: 1\nhandlers:\n{factory}root:\n  handlers: [x]\n"
    files = {
        "experiment/evil.yaml": f"# @package _global_\nhydra:\n  callbacks:\n{callback}",
        "hydra/callbacks/evil.yaml": callback.replace("    ", ""),
        "hydra/job_logging/evil.yaml": logs.replace("\n    ", "\n  "),
        "evil.yaml": f"defaults: [config, _self_]\nhydra:\n  callbacks:\n{callback}",
    }
    for name, text in files.items():
        path = folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n/usr/bin/touch '{canary}'\n")
    program.chmod(0o755)


def _in_arguments(what: str) -> Spoil:
    def spoil(folder: Path, canary: Path) -> None:
        _write_conf(folder, canary)
        words = _overrides(str(canary), str(folder))[what]
        _change_json(folder / "sweep.json", lambda content: content["arguments"].extend(words))

    return spoil


def _in_overrides_of_jobs(what: str) -> Spoil:
    def spoil(folder: Path, canary: Path) -> None:
        _write_conf(folder, canary)
        words = _overrides(str(canary), str(folder))[what]
        _change_json(
            folder / "sweep.json", lambda content: [job["overrides"].extend(words) for job in content["jobs"]]
        )

    return spoil


def _change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _json(name: str, change: Callable[[Any, Path, Path], object]) -> Spoil:
    """Return a spoil that changes the content of a JSON file, given the folder and the canary too."""
    return lambda folder, canary: _change_json(folder / name, lambda content: change(content, folder, canary))


def _set(*keys: str | int, value: Any) -> Callable[[Any, Path, Path], None]:
    """Return a change that sets a nested entry; ``{canary}`` and ``{parent}`` are put into a text."""

    def change(content: Any, folder: Path, canary: Path) -> None:
        whole = content
        for key in keys[:-1]:
            content = content[key]
        text = value.format(canary=canary, parent=folder.parent.parent) if isinstance(value, str) else value
        content[keys[-1]] = text
        whole.pop("checksum", None)

    return change


def _yaml(name: str, text: str, *, only: bool) -> Spoil:
    """Return a spoil that appends to a YAML file; with ``only``, the files that are read before it are gone."""

    def spoil(folder: Path, canary: Path) -> None:
        path = folder / name
        content = path.read_text()
        for line in (addition := text.replace("CANARY", str(canary))).splitlines():
            if line[:1] not in (" ", "") and line.partition(":")[0]:
                # A top-level key of the addition takes the place of the one that is there.
                content = "\n".join(
                    old for old in content.split("\n") if not old.startswith(line.partition(":")[0] + ":")
                )
        path.write_text(content.rstrip("\n") + "\n" + addition + "\n")
        if only:
            (folder / "summary.json").unlink()
            shutil.rmtree(folder / "checkpoints")

    return spoil


def _in_every_checkpoint(folder: Path, canary: Path) -> None:
    from experiments.hostile.malformed import seal, with_system_call

    for file in files_of(folder):
        if file.suffix == ".ckpt":
            seal(folder / file, with_system_call(f"touch '{canary}'"))


def _link_job_to_documents(folder: Path, canary: Path) -> None:
    documents = folder.parent / "documents"
    documents.mkdir()
    (documents / "letter").write_text("Dear all")
    shutil.rmtree(folder / OPEN)
    (folder / OPEN).symlink_to(documents)


def _traps() -> list[_Trap]:
    traps = []
    for what in _overrides("", ""):
        traps.append(_Trap(f"arguments in sweep.json: {what}", HALF, _in_arguments(what), ("resume", "report")))
        traps.append(_Trap(f"overrides of a job in sweep.json: {what}", HALF, _in_overrides_of_jobs(what)))
    for place in _PLACES:
        spoil = _json("sweep.json", _set("jobs", 1, "folder", value=place))
        traps.append(_Trap(f"folder of a job in sweep.json: {place!r}", HALF, spoil, ("resume", "report")))
    for key in ("_target_", "hydra", "hydra.callbacks.x._target_", "config", "__class__"):
        traps.append(_Trap(f"{key} in sweep.json", HALF, _json("sweep.json", _set("config", key, value="os.system"))))
    for (*keys, last), values in _VALUES.items():
        for value in values:
            spoil = _json("summary.json", _set("config", *keys, last, value=value))
            traps.append(_Trap(f"{last} in summary.json: {value!r}", STOPPED, spoil))
    for what, text in _CONFIGS.items():
        traps.append(_Trap(f"config.yaml: {what}", STOPPED, _yaml(_CONFIG, text, only=True)))
    for name, victim in _UNREAD.items():
        spoil = _yaml(name, _WORD if name.endswith("overrides.yaml") else _CALLBACKS, only=False)
        traps.append(_Trap(f"{name}: callbacks", victim, spoil, is_read=False))
    for victim in (STOPPED, RUN):
        traps.append(_Trap("checkpoints: os.system", victim, _in_every_checkpoint, ("resume", "trace")))
    traps.append(
        _Trap("checkpoints of a job: os.system", HALF, lambda folder, at: _in_every_checkpoint(folder / OPEN, at))
    )
    traps.append(_Trap("a job's folder is a link to documents", HALF, _link_job_to_documents))
    return traps


# Where a job would be, and values of a run's configuration that mean more than they say.
_PLACES = ("{parent}/elsewhere", "../elsewhere", "../../elsewhere", ".", "", "..", f"{OPEN}/../../elsewhere", "a\0b")
_VALUES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data", "task"): ("os", "os:system", "../../evil", "grulab.cli", "base", "registry", "__init__", "\0", "a.b"),
    ("name",): ("${{oc.env:HOME}}", "${{now:%Y}}", "${{name}}", "../elsewhere", "$(touch {canary})"),
    ("trainer", "threads"): ("${{oc.env:UID}}", "${{oc.decode:'1'}}", "${{data.batch_size}}"),
    ("_target_",): ("os.system",),
}
_CONFIG = ".hydra/config.yaml"
_CALLBACKS = "hydra:\n  callbacks:\n    x:\n      _target_: shutil.copyfile\n      src: /dev/null\n      dst: CANARY"
_WORD = "- +hydra.callbacks.x._target_=os.system"
# In the configuration of a run that has lost its summary.
_CONFIGS = {
    "a python tag": "seed: !!python/object/apply:os.system ['touch CANARY']",
    "a module tag": "seed: !!python/module:antigravity",
    "_target_": "_target_: os.system",
    "_target_ in a section": "seed:\n  _target_: os.getpid",
    "the environment": "name: ${oc.env:HOME}",
    "the environment, for a value as before": "name: ${oc.env:NOT_SET,sinusoids}",
    "a decoded text": "seed: ${oc.decode:'7'}",
    "a resolver of grulab": "name: ${grulab_job_folder:1,[],[]}",
    "an alias bomb": "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)),
}
# Files that no command reads.
_UNREAD = {
    _CONFIG: STOPPED,
    ".hydra/hydra.yaml": STOPPED,
    ".hydra/overrides.yaml": STOPPED,
    f"{OPEN}/.hydra/hydra.yaml": HALF,
    "multirun.yaml": HALF,
}
