"""Random command lines, most of them mistakes: each costs one line, and leaves nothing behind."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from experiments.hostile import words
from experiments.hostile.sandbox import Case, Outcome, Prepare, Violation, attack, make_odd, never
from experiments.hostile.victims import TINY

PART = "commands"


@dataclass
class Line:
    """A command line.

    Attributes:
        arguments: of ``grulab``.
        mistakes: how many were planted; None if it may be none or one.
        prepare: what it meets.
    """

    arguments: list[str]
    mistakes: int | None = 1
    prepare: Prepare = field(default=lambda cwd: None)


def cases(seed: int, count: int, limit: float, victims: Path) -> list[Case]:
    """Return the command lines with the numbers from 0 to ``count``."""
    return [_case(seed, number, limit, victims) for number in range(count)]


def _case(seed: int, number: int, limit: float, victims: Path) -> Case:
    generator = random.Random(f"{PART} {seed} {number}")
    recipe = generator.choices(list(_RECIPES), list(_RECIPES.values()))[0]
    line = recipe(generator, victims)
    what = "grulab " + " ".join(map(_short, line.arguments)).replace(" ".join(TINY), "TINY")
    judge = partial(_judge, line.mistakes)
    run = partial(attack, line.arguments, line.prepare, judge, limit=limit, clean=True)
    return Case(PART, number, what, run)


def _short(word: str) -> str:
    text = word if word.isprintable() and word and " " not in word else ascii(word)
    return text if len(text) < 100 else f"{text[:60]}...({len(word)} characters)"


def _judge(mistakes: int | None, folder: Path, outcome: Outcome) -> Iterator[Violation]:
    if mistakes == 0 and outcome.code not in (0, None):
        yield Violation("a valid command is refused", outcome.stderr)
    if mistakes and outcome.code == 0:
        yield Violation("a mistake is not noticed", (outcome.stdout.splitlines() or [""])[0])
    if outcome.code == 1 and not any(never(outcome)):
        yield Violation("exit code 1 for a mistake", outcome.stderr)
    if outcome.code == 2 and len(outcome.mistakes) > (mistakes or 1):
        yield Violation("several lines for a mistake", " / ".join(outcome.mistakes[:3]))
    if (folder / "cwd" / "canary").exists():
        yield Violation("code was executed", "canary")


def _mode(generator: random.Random) -> list[str]:
    """Return a command that would train: one run, a sweep, or a sweep that is only planned."""
    sweep = ["train", "-m", "data.seed=0,1", "hydra.launcher.cores=1"]
    return [*generator.choice([["train"], sweep, [*sweep, "--plan"]]), *TINY]


def _typo(generator: random.Random, word: str) -> str:
    at = generator.randrange(len(word))
    swapped = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
    return generator.choice(
        [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped, word[:at] + "x" + word[at + 1 :]]
    )


def _misspelt(generator: random.Random, victims: Path) -> Line:
    known = {*words.WRONG, *words.GROUPS, "model.parameter_budget"}
    while (key := _typo(generator, generator.choice(words.KEYS))) in known or key.startswith((".", "hydra")):
        pass
    override = generator.choice([f"{key}=8", f"{key}=8,16", f"{key}=[8]", f"{key}={{a:1}}", f"{key}=null"])
    if generator.random() < 0.15:
        group = generator.choice(words.GROUPS)
        override = f"{group}={generator.choice(['nope', 'sinusoid', 'Gru', 'adamm', 'defaul', 'arch', 'ä', '3'])}"
    if generator.random() < 0.05:
        override = f"{generator.choice(words.KEYS).split('.')[-1]}s=3"
    mode = _mode(generator)
    if "," in override and "-m" not in mode:
        override = f"{key}=8"
    return Line([*mode, override])


def _wrong_value(generator: random.Random, victims: Path) -> Line:
    key = generator.choice(list(words.WRONG))
    return Line([*_mode(generator), f"{key}={generator.choice(words.WRONG[key])}"])


def _two_mistakes(generator: random.Random, victims: Path) -> Line:
    one, other = generator.sample([key for key in words.WRONG if key not in ("name", "data.task")], 2)
    overrides = [f"{key}={generator.choice(words.WRONG[key])}" for key in (one, other)]
    return Line([*_mode(generator), *overrides], mistakes=2)


def _one_job_is_wrong(generator: random.Random, victims: Path) -> Line:
    key = generator.choice(["model.hidden_size", "trainer.max_epochs", "optimizer.lr"])
    wrong = [value for value in words.WRONG[key] if value[0] not in "[{"]
    command = ["train", "-m", *TINY, f"{key}=1,{generator.choice(wrong)}"]
    return Line([*command, *generator.choice([[], ["--plan"], ["seed=0,1,2"]])])


def _odd_text(generator: random.Random, victims: Path) -> Line:
    word = generator.choice(words.ODD_WORDS)
    if generator.random() < 0.6:
        value = generator.choice(words.ODD_VALUES)
        if generator.random() < 0.3:
            value = "".join(generator.choices(words.ODD_VALUES, k=2))
        word = f"{generator.choice([*words.WRONG, 'data', 'experiment', 'hydra.run.dir'])}={value}"
    mode = generator.choice(
        [["train", "--cfg", "job"], ["train"], ["train", "-m", "--plan"], ["train", "-m", "--plan", "data.seed=0,1"]]
    )
    return Line([*mode, *TINY, word], mistakes=None)


def _odd_hydra(generator: random.Random, victims: Path) -> Line:
    mode = _mode(generator) if generator.random() < 0.9 else ["train", "--cfg", "job"]
    return Line([*mode, generator.choice(words.ODD_HYDRA)], mistakes=None)


def _flags(generator: random.Random, victims: Path) -> Line:
    return Line(*generator.choice(words.FLAGS))


def _huge(generator: random.Random, victims: Path) -> Line:
    if generator.random() < 0.2:
        keys = generator.sample(["seed", "data.seed", "model.hidden_size", "model.num_layers", "data.train_size"], 3)
        overrides = [f"{key}=range(1,1001)" for key in keys]
    else:
        overrides = [f"{generator.choice(['seed', 'model.hidden_size'])}={generator.choice(words.RANGES)}"]
    return Line(["train", "-m", "--plan", *TINY, *overrides], mistakes=None)


def _place(name: str) -> Prepare:
    """Return a function that makes a folder of an odd name, or something that is no folder."""

    def put(cwd: Path) -> None:
        path = cwd / name
        match name:
            case "fifo":
                os.mkfifo(path)
            case "file":
                path.write_text("text")
            case "full":
                path.mkdir()
                (path / "something").write_text("text")
            case "loop":
                path.symlink_to(path)
            case "dangling":
                path.symlink_to("nowhere")
            case "device":
                path.symlink_to("/dev/full")
            case _:
                path.mkdir(parents=True)

    return put


def _odd_folder(generator: random.Random, victims: Path) -> Line:
    name = generator.choice(words.PLACES)
    put = _place(name)
    quoted = "'" + name.replace("'", "\\'") + "'"
    raw = generator.choice([name, quoted, f"./{name}", f"{name}/sub"])
    verb = generator.choice(["resume", "report", "trace", "train", "train -m", "--config-dir"])
    if verb in ("resume", "report", "trace"):
        return Line([verb, name], prepare=put)
    if verb == "--config-dir":
        return Line(["train", f"--config-dir={name}", *TINY, "seed=x"], None, put)
    if verb == "train":
        return Line(["train", *TINY, f"hydra.run.dir={raw}", "model.hidden_size=0"], 1, put)
    plan = generator.choice([[], ["--plan"]])
    command = ["train", "-m", *plan, *TINY, f"hydra.sweep.dir={raw}", "seed=0,0"]
    return Line(command, 1, put)


def _taken_folder(generator: random.Random, victims: Path) -> Line:
    """Return a valid run in a folder that cannot be had; some can."""
    name = generator.choice(["fifo", "file", "full", "loop", "dangling", "device"])
    put = _place(name)
    mode = generator.choice(
        [["train", f"hydra.run.dir={name}"], ["train", "-m", "seed=0,1", f"hydra.sweep.dir={name}"]]
    )
    below = generator.choice(["", "/sub"])
    return Line([*mode[:-1], mode[-1] + below, *TINY], None, put)


def _odd_yaml(generator: random.Random, victims: Path) -> Line:
    kind = generator.choice([*words.YAML, "a FIFO", "a folder", "a loop", "/dev/zero"])
    group = generator.choice(["experiment", "experiment", "data", "model", "hydra/launcher", ""])

    def prepare(cwd: Path) -> None:
        path = cwd / "odd" / group / ("evil.yaml" if group else "config.yaml")
        path.parent.mkdir(parents=True)
        if kind in words.YAML:
            path.write_bytes(words.YAML[kind])
        else:
            make_odd(path, kind)

    choice = [f"{group}=evil"] if group else []
    mode = generator.choice([["train"], ["train", "-m", "--plan"], ["train", "--cfg", "job"]])
    return Line([*mode, "--config-dir", "odd", *TINY, *choice], None, prepare)


def _copy(victim: Path, cwd: Path) -> None:
    shutil.copytree(victim, cwd / victim.name)


def _other_verbs(generator: random.Random, victims: Path) -> Line:
    match generator.choices(["operand", "resume", "resume sweep", "sequence", "report"], [3, 5, 2, 1, 1])[0]:
        case "operand":
            verb = generator.choices(["resume", "report", "trace"], [2, 2, 1])[0]
            operands = generator.choice(words.OPERANDS)
            return Line([verb, *operands], 0 if "--help" in operands else 1)
        case "resume":
            override = generator.choice(words.OVERRIDES_OF_A_RESUME)
            name = generator.choice(["run", "stopped"])
            return Line(["resume", name, override], 1, partial(_copy, victims / name))
        case "resume sweep":
            override = generator.choice([*words.OVERRIDES_OF_A_RESUME[:9], *words.OVERRIDES_OF_A_SWEEP])
            return Line(
                ["resume", "half", *generator.choice([[], ["--plan"]]), override], 2, partial(_copy, victims / "half")
            )
        case "sequence":
            value = generator.choice(
                ["-1", "999999", "x", "1.5", "", "nan", "1" * 30, "1" * 5000, "\udcff", "a\nb", "[1]"]
            )
            return Line(
                ["trace", "run", generator.choice(["--sequence=", "--seq="]) + value],
                1,
                partial(_copy, victims / "run"),
            )
        case _:
            return Line(["report", "run"], 1, partial(_copy, victims / "run"))


def _valid(generator: random.Random, victims: Path) -> Line:
    return Line(*generator.choice(words.VALID))


# How to make a line, and how often.
_RECIPES: dict[Callable[[random.Random, Path], Line], float] = {
    _misspelt: 17,
    _wrong_value: 25,
    _two_mistakes: 6,
    _one_job_is_wrong: 4,
    _odd_text: 14,
    _odd_hydra: 11,
    _flags: 8,
    _huge: 1,
    _odd_folder: 4,
    _taken_folder: 1,
    _odd_yaml: 4,
    _other_verbs: 6,
    _valid: 1,
}
