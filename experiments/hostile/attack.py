"""Attack grulab in six ways, write results.md, and exit with 1 if anything happened that must not.

Run from the top of the checkout: python -m experiments.hostile.attack [--seed 1] [--only commands kinds]
"""

import argparse
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from experiments.hostile import checkpoints, code, commands, flips, kills, kinds, victims
from experiments.hostile.sandbox import Case, Result, run_all

# Imported before the victims are forked, so that a case does not count the time of an import.
import grulab.commands.report
import grulab.commands.resume
import grulab.commands.sweep
import grulab.commands.trace
import grulab.commands.train  # noqa: F401
from grulab.config.compose import compose
from grulab.report.sections import Section, to_markdown
from grulab.run_folder.summary import git_state, versions

HERE = Path(__file__).parent


@dataclass
class Part:
    """A part of the study that was run: its cases with their results, and how long it took."""

    name: str
    results: list[tuple[Case, Result]]
    seconds: float


def main() -> int:
    """Run the parts; return the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary:
        root = Path(temporary).resolve()
        _in_a_process_of_its_own(victims.make_victims, root / "victims")
        # Every command forks from this process: it imports first what they have in common, torch only after the part
        # which finds out who imports it.
        compose(victims.TINY)
        git_state()
        versions()
        parts = []
        for name in options.only:
            if name != commands.PART:
                victims.load_libraries()
            cases = _cases(name, options, root / "victims")
            if options.case is not None:
                return _show(cases[options.case], root)
            parts.append(_run(name, cases, root, options.seed))
    text = _report(parts, options)
    if set(options.only) == set(_PARTS):
        (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(result.violations for part in parts for _, result in part.results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), metavar="PART")
    parser.add_argument("--case", type=int, help="run this one case of a part, and show what it prints")
    parser.add_argument("--commands", type=int, default=1000, help="number of command lines")
    parser.add_argument("--flips", type=int, default=1000, help="number of flipped bits")
    parser.add_argument("--checkpoints", type=int, default=200, help="number of changed entries of checkpoints")
    parser.add_argument("--kills", type=int, default=40, help="number of kills")
    parser.add_argument("--limit", type=float, default=20, help="seconds after which a command hangs")
    options = parser.parse_args()
    if options.case is not None and len(options.only) != 1:
        parser.error("--case takes --only with one part")
    # In the order in which they have to run.
    options.only = [name for name in _PARTS if name in options.only]
    return options


def _cases(name: str, options: argparse.Namespace, folder: Path) -> list[Case]:
    return _PARTS[name](options, folder)


_PARTS: dict[str, Callable[[argparse.Namespace, Path], list[Case]]] = {
    commands.PART: lambda options, folder: commands.cases(options.seed, options.commands, options.limit, folder),
    code.PART: lambda options, folder: code.cases(options.limit, folder),
    kinds.PART: lambda options, folder: kinds.cases(options.limit, folder),
    flips.PART: lambda options, folder: flips.cases(options.seed, options.flips, options.limit, folder),
    checkpoints.PART: lambda options, folder: checkpoints.cases(
        options.seed, options.checkpoints, options.limit, folder
    ),
    kills.PART: lambda options, folder: kills.cases(options.seed, options.kills, options.limit, folder),
}


def _in_a_process_of_its_own(function: Callable[[Path], None], folder: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=function, args=(folder,))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{function.__name__} failed")


def _run(name: str, cases: Sequence[Case], root: Path, seed: int) -> Part:
    began = time.perf_counter()
    results = []
    for case, result in run_all(cases, root):
        results.append((case, result))
        for violation in result.violations:
            print(
                f"{violation.kind}: {case.what}\n    {_short(violation.evidence)}\n    {_command(case, seed)}",
                flush=True,
            )
    results.sort(key=lambda pair: pair[0].number)
    part = Part(name, results, time.perf_counter() - began)
    bad = sum(bool(result.violations) for _, result in results)
    print(f"{name}: {len(results)} cases, {bad} of them with violations, {part.seconds:.0f} s", flush=True)
    return part


def _show(case: Case, root: Path) -> int:
    folder = root / "shown"
    folder.mkdir()
    result = case.run(folder)
    outcome = result.outcome
    print(case.what)
    print(f"exit code {outcome.code} after {outcome.seconds:.2f} s with {outcome.peak} MiB")
    print(f"stdout:\n{outcome.stdout}\nstderr:\n{outcome.stderr}")
    for violation in result.violations:
        print(f"{violation.kind}: {violation.evidence}")
    return int(bool(result.violations))


def _command(case: Case, seed: int) -> str:
    return f"python -m experiments.hostile.attack --seed {seed} --only {case.part} --case {case.number}"


def _report(parts: Sequence[Part], options: argparse.Namespace) -> str:
    rows = []
    for part in parts:
        outcomes = [result.outcome for _, result in part.results]
        codes = Counter("hangs" if outcome.code is None else str(outcome.code) for outcome in outcomes)
        rows.append(
            {
                "part": part.name,
                "cases": len(outcomes),
                "exit codes": ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())),
                "cases with violations": sum(bool(result.violations) for _, result in part.results),
                "slowest": f"{max(outcome.seconds for outcome in outcomes):.1f} s",
                "peak memory": f"{max(outcome.peak for outcome in outcomes)} MiB",
                "took": f"{part.seconds:.0f} s",
            }
        )
    total = sum(len(part.results) for part in parts)
    text = f"{total} cases with the seed {options.seed}, on two cores. " + _speed(parts)
    sections = [Section("Attacks", text.strip(), pd.DataFrame(rows)), _violations(parts, options.seed)]
    return to_markdown("Under attack: results", sections)


def _speed(parts: Sequence[Part]) -> str:
    """Return how quick mistakes on the command line are found, in words."""
    mistakes = [
        (case, result.outcome)
        for part in parts
        if part.name == commands.PART
        for case, result in part.results
        if result.outcome.code == 2
    ]
    if not mistakes:
        return ""
    seconds = [outcome.seconds for _, outcome in mistakes]
    late = Counter(case.what.split()[1] for case, outcome in mistakes if outcome.imported_torch)
    who = ", ".join(f"{count} of grulab {verb}" for verb, count in late.most_common()) or "none"
    return (
        f"{len(mistakes)} mistakes on the command line were refused: {1000 * statistics.median(seconds):.0f} ms in "
        f"the median and {max(seconds):.1f} s at most, without the import of Hydra. Refused only after torch was "
        f"imported: {who}."
    )


def _violations(parts: Sequence[Part], seed: int) -> Section:
    """Return a row for each kind of violation, with the case of the shortest description as an example."""
    groups: dict[tuple[str, str], list[tuple[Case, str]]] = {}
    for part in parts:
        for case, result in part.results:
            for violation in result.violations:
                groups.setdefault((part.name, violation.kind), []).append((case, violation.evidence))
    if not groups:
        return Section("Violations", "None.")
    rows = []
    for (part_name, kind), found in groups.items():
        case, evidence = min(found, key=lambda pair: len(pair[0].what))
        words = [part_name, kind, len(found), _short(case.what), _short(evidence), _command(case, seed)]
        rows.append(dict(zip(("part", "what", "times", "for example", "evidence", "again"), words, strict=True)))
    return Section("Violations", f"{sum(map(len, groups.values()))} in all.", pd.DataFrame(rows))


def _short(text: str) -> str:
    """Return one printable line of at most 200 characters, without the paths of this machine."""
    line = re.sub(r"/\S*/hostile-\w+/(\w+/\d+/(cwd/)?)?", "", " ".join(text.split())).replace(sys.prefix, ".venv")
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) < 200 else f"{line[:197]}..."


if __name__ == "__main__":
    sys.exit(main())
