"""Measures kernels, runs and sweeps side by side with the alternatives.

python -m experiments.throughput.measure [--repeats 5] [--only kernel runs sweep vowels scale length floor]

It installs Keras and JAX in a separate environment under outputs/, and takes about half an hour.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from experiments.real_data.datasets import training_files
from experiments.throughput import kernel, length, peers, pictures, runs, scale

from grulab.config.compose import compose
from grulab.kernels import fused
from grulab.report.sections import Section, to_markdown
from grulab.system.cores import available_cores

HERE = Path(__file__).parent
PARTS = ("kernel", "runs", "sweep", "vowels", "scale", "length", "floor")
SHAPES = {
    "5 to 10 steps, 8 units": ["model.hidden_size=8"],
    "50 to 100 steps, 64 units": ["data.min_length=50", "data.max_length=100", "model.hidden_size=64"],
    "100 steps, 64 units": ["data.min_length=100", "data.max_length=100", "model.hidden_size=64"],
}
_SWEPT = ["hidden_size=8,16,32", "num_layers=1,2", "bidirectional=false,true", "seed=0,1,2"]
_ORDINARY = [sys.executable, "-m", "experiments.sweeps.ordinary.train", "-m", *_SWEPT]
_GRULAB = [str(Path(sys.executable).with_name("grulab")), "train", "-m", "experiment=architecture"]
SWEEPS = {
    "grulab": _GRULAB,
    "ordinary script, basic launcher": _ORDINARY,
    "ordinary script, joblib launcher": [
        *_ORDINARY,
        "hydra/launcher=joblib",
        f"hydra.launcher.n_jobs={available_cores()}",
    ],
}
_KERAS = "Keras 3 on JAX"
_IMPORTS = (
    "from grulab.system.quick_import import quick_import\n"
    "with quick_import():\n    import grulab.commands.train, torch.utils.tensorboard, grulab.training.run"
)


def measure_runs(
    repeats: int, shapes: Mapping[str, list[str]], contenders: Callable[[str], Sequence[str]]
) -> pd.DataFrame:
    """Train the same run with each contender in turn, on one core.

    Args:
        repeats: how often.
        shapes: the overrides of each run.
        contenders: those for the run with a name.

    Returns:
        A row for each shape, contender and repeat: ``epoch``, the median seconds of a training epoch without the
        first, and ``run``, the seconds of the whole run without imports.
    """
    rows: list[tuple[str, str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shape, overrides in shapes.items():
            config = compose(overrides)
            data = Path(folder) / f"{len(rows)}.npz"
            peers.export(config.data, data)
            options = ["run", "--hidden-size", str(config.model.hidden_size), "--threads", "1"]
            options += ["--batch-size", str(config.data.batch_size), "--epochs", str(config.trainer.max_epochs)]
            for repeat in range(repeats):
                for contender in contenders(shape):
                    if contender == _KERAS:
                        found = peers.keras(options, data)
                        epochs = found["train_epoch_seconds"]
                        whole = found["total_seconds"] - found["import_seconds"]
                    else:
                        found = _json(["-m", "experiments.throughput.runs", contender, *overrides])
                        epochs, whole = found["epochs"][1:], found["run"]
                    rows.append((shape, contender, repeat, statistics.median(epochs), whole))
                    print(f"{shape}  {contender}  {1000 * rows[-1][3]:.1f} ms, {whole:.2f} s", flush=True)
    return pd.DataFrame(rows, columns=["shape", "contender", "repeat", "epoch", "run"])


def measure_sweep(repeats: int) -> pd.DataFrame:
    """Run the default sweep with each contender in turn, on all cores.

    Returns:
        A row with ``seconds`` for each repeat of each contender and of each part of the floor.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        peers.export(compose([]).data, data)
        contenders: dict[str, Callable[[], Any]] = {
            **{name: partial(_sweep, command, Path(folder)) for name, command in SWEEPS.items()},
            f"{_KERAS}, XLA's own settings": lambda: peers.keras(["sweep"], data, xla_flags=""),
            f"{_KERAS}, tuned to compile quickly": lambda: peers.keras(["sweep"], data),
        }
        for name, repeat, seconds in _in_turn(repeats, contenders):
            rows.append((name, repeat, seconds))
            if name == "grulab":
                rows += [(part, repeat, seconds) for part, seconds in _measure_floor().items()]
    return pd.DataFrame(rows, columns=["contender", "repeat", "seconds"])


def _in_turn(repeats: int, contenders: Mapping[str, Callable[[], Any]]) -> Iterator[tuple[str, int, float]]:
    """Call each contender in turn; yield its name, the number of the turn and the seconds that it took."""
    for repeat in range(repeats):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            seconds = time.perf_counter() - began
            print(f"{name}  {seconds:.1f} s", flush=True)
            yield name, repeat, seconds


def report_vowels(repeats: int, files: Path | None) -> list[Section]:
    """Run the default sweep's 36 models on Japanese Vowels, and return the section of vowels.md."""
    file = training_files(files)["JapaneseVowels"]
    words = ["data=files", f"data.path={file}"]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        peers.export(compose(words).data, data)
        contenders: dict[str, Callable[[], Any]] = {
            "grulab": lambda: _sweep([*_GRULAB, *words], Path(folder)),
            "ordinary script, basic launcher": lambda: _sweep([*_ORDINARY, f"file={file}"], Path(folder)),
            f"{_KERAS}, XLA's own settings": lambda: peers.keras(["sweep"], data, xla_flags=""),
            f"{_KERAS}, tuned to compile quickly": lambda: peers.keras(["sweep"], data),
        }
        rows = list(_in_turn(repeats, contenders))
    table = pd.DataFrame(rows, columns=["contender", "repeat", "seconds"])
    text = (
        "Japanese Vowels (9 speakers, 234 sequences of 7 to 29 steps to train with): the 36 models of the default "
        f"sweep, 5 epochs each, {available_cores()} cores, start-up included, {repeats} times in turn."
    )
    return [Section("A person's own sequences", text, _seconds_beside_grulab(table))]


def _seconds_beside_grulab(table: pd.DataFrame) -> pd.DataFrame:
    wide = table.pivot(index="repeat", columns="contender", values="seconds")
    rows = [
        {
            "contender": contender,
            "seconds": _spread(wide[contender], ".1f"),
            "times as long as grulab": f"{(wide[contender] / wide['grulab']).median():.2f}",
        }
        for contender in table["contender"].unique()
    ]
    return pd.DataFrame(rows)


def report_floor(repeats: int) -> list[Section]:
    """Run the default sweep and its floor in turn, and return the section of floor.md."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            began = time.perf_counter()
            _sweep(_GRULAB, Path(folder))
            whole = time.perf_counter() - began
            floor = _measure_floor()
            least = floor["imports"] + floor["loops"]
            rows.append([whole, floor["imports"], floor["loops"], whole / least])
            print(*(f"{value:.2f}" for value in rows[-1]), flush=True)
    table = pd.DataFrame(rows, columns=["grulab (s)", "imports (s)", "loops on all cores (s)", "times the floor"])
    text = (
        "The sweep, and right after it what it cannot do without: the imports, and the 36 jobs in plain loops of "
        f"PyTorch with the fused kernels. Median: {table['times the floor'].median():.2f} times."
    )
    return [Section("The default sweep and its floor, in turn", text, table.round(2))]


def _measure_floor() -> dict[str, float]:
    """Return the seconds of the imports, and of the loops and of their kernels on all cores."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True)
    imports = time.perf_counter() - began
    found = _json(["-m", "experiments.throughput.floor"])
    return {"imports": imports, **{part: found[part] / available_cores() for part in ("loops", "kernels")}}


def _json(arguments: list[str]) -> dict[str, Any]:
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def _sweep(command: list[str], folder: Path) -> None:
    command = [*command, f"hydra.sweep.dir={folder}/{time.time_ns()}"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]


def report_kernel(repeats: int) -> list[Section]:
    """Measure the kernels, draw the speedup against the hidden size, and return the sections of kernel.md."""
    shapes, sizes = kernel.measure(kernel.SHAPES, repeats), kernel.measure(kernel.SIZES, repeats)
    pictures.draw_kernel(sizes, HERE / "figures" / "kernel.png")
    cells = pd.DataFrame(
        {
            "steps": shapes["steps"],
            "units": shapes["hidden_size"],
            "batch": shapes["batch"],
            "layers": shapes["num_layers"],
            "directions": 1 + shapes["bidirectional"],
            "nn.GRU (ms)": shapes["torch"].map("{:.2f}".format),
            "fused (ms)": shapes["fused"].map("{:.2f}".format),
            "times as fast": shapes["ratio"].map("{:.1f}".format),
            "lowest to highest": shapes["lowest"].map("{:.1f} to ".format) + shapes["highest"].map("{:.1f}".format),
        }
    )
    slowest = sizes.sort_values("ratio").iloc[0]
    text = (
        f"A packed batch, forward and backward, one thread, medians of {repeats} turns each. `lowest to highest`: "
        f"the ratios of neighbouring turns. Over hidden sizes from 1 to 512 (20 steps, batch 32) the least gain is "
        f"{slowest['ratio']:.1f} times, with {slowest['hidden_size']:.0f} units.\n\n"
        "![Times as fast as nn.GRU against the hidden size](figures/kernel.png)"
    )
    return [Section("The kernels against nn.GRU", text, cells)]


def report_runs(repeats: int) -> list[Section]:
    """Measure single runs, and return the sections of runs.md."""
    table = measure_runs(repeats, SHAPES, lambda shape: [*runs.CONTENDERS, _KERAS])
    pictures.draw_runs(table, HERE / "figures" / "runs.png")
    sections: list[Section] = []
    for shape, found in table.groupby("shape", sort=False):
        wide = found.pivot(index="repeat", columns="contender", values=["epoch", "run"])
        rows = []
        for contender in found["contender"].unique():
            epoch, run = wide["epoch"][contender], wide["run"][contender]
            is_loop = contender.startswith("bare loop")
            rows.append(
                {
                    "contender": contender,
                    "training epoch (ms)": _spread(1000 * epoch, ".1f"),
                    "of grulab's": f"{(epoch / wide['epoch']['grulab']).median():.2f}",
                    "whole run (s)": "" if is_loop else _spread(run, ".2f"),
                    "of grulab's ": "" if is_loop else f"{(run / wide['run']['grulab']).median():.2f}",
                }
            )
        sections.append(Section(f"A run: {shape}", _RUNS if not sections else "", pd.DataFrame(rows)))
    return sections


_RUNS = (
    "1000 sequences in batches of 32, five epochs, one core, in turn; medians, and lowest to highest. A "
    "training epoch is all steps and what is between them, the first epoch left out. The whole run is everything but "
    "imports: grulab's has validation, TensorBoard, metrics.csv, checkpoints, the test and a summary; `barebones` "
    "has validation alone; the ordinary module has TensorBoard, a progress bar and checkpoints; Keras has validation "
    "and the test, and most of it is compilation. All but `nn.GRU` and the ordinary module use the fused kernels."
)


def report_sweep(repeats: int) -> list[Section]:
    """Measure the default sweep, and return the sections of sweep.md."""
    table = measure_sweep(repeats)
    pictures.draw_sweep(table, HERE / "figures" / "sweep.png")
    wide = table.pivot(index="repeat", columns="contender", values="seconds")
    parts = ["imports", "loops", "kernels"]
    floors = {"loops": wide["imports"] + wide["loops"], "kernels": wide["imports"] + wide["kernels"]}
    close = {name: (wide["grulab"] / floor).median() for name, floor in floors.items()}
    medians = wide.median()
    text = (
        f"36 jobs of 5 epochs, {available_cores()} cores, start-up included, {repeats} times in turn; grulab's time "
        "includes its report. Keras has neither checkpoints nor curves nor a report, and trains the three seeds of "
        "an architecture with one compiled model.\n\n![Seconds of the default sweep](figures/sweep.png)"
    )
    floor = (
        f"No sweep is faster than importing torch and Lightning ({medians['imports']:.1f} s) and then computing on "
        "all cores at once. In loops of PyTorch alone, with the fused kernels, the 36 jobs' training, validation and "
        f"test take {medians['loops']:.1f} s of all cores: a floor of {floors['loops'].median():.1f} s, and grulab "
        f"takes {close['loops']:.2f} times that. The kernels alone take {medians['kernels']:.1f} s of it: a floor of "
        f"{floors['kernels'].median():.1f} s, and grulab takes {close['kernels']:.2f} times that. "
        "(`python -m experiments.throughput.floor`)"
    )
    contenders = _seconds_beside_grulab(table[~table["contender"].isin(parts)])
    return [Section("The default sweep", text, contenders), Section("The floor", floor)]


def _spread(values: "pd.Series[float]", form: str) -> str:
    return f"{values.median():{form}} ({values.min():{form}} to {values.max():{form}})"


def describe_machine() -> str:
    """Return the machine, the versions and the date of the measurement."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    lanes = {16: "AVX-512", 8: "AVX2"}.get(fused.widest_lanes(), "vectors of 4")
    return (
        f"{available_cores()} cores of {cpu} ({lanes}), Python {platform.python_version()}, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}. Ratios are of measurements that follow each other."
    )


def main(repeats: int, parts: list[str], files: Path | None) -> None:
    reports: dict[str, Callable[[int], list[Section]]] = {
        "kernel": report_kernel,
        "runs": report_runs,
        "sweep": report_sweep,
        "vowels": partial(report_vowels, files=files),
        "floor": report_floor,
    }
    for part in parts:
        if part == "scale":
            scale.main()
            continue
        if part == "length":
            shapes = {str(steps): length.overrides(steps) for steps in length.STEPS}
            length.report(measure_runs(repeats, shapes, lambda steps: [*length.contenders(int(steps)), _KERAS]))
            continue
        titles = {
            "kernel": "Kernels",
            "runs": "Runs",
            "sweep": "The default sweep",
            "vowels": "A sweep over a file",
            "floor": "The floor",
        }
        title = titles[part]
        command = (
            f"`python -m experiments.throughput.measure --repeats {repeats} --only {part}` on {describe_machine()}"
        )
        report = to_markdown(title, [Section("Command", command), *reports[part](repeats)])
        (HERE / f"{part}.md").write_text(report, encoding="utf-8")
        print(report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the .ts files for vowels; default: aeon's")
    arguments = parser.parse_args()
    main(arguments.repeats, list(arguments.only), arguments.data)
