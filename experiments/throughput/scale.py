"""Peak memory and time of a run against the number of training sequences.

python -m experiments.throughput.scale
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from grulab.report.sections import Section, to_markdown

# 300,000 sequences are just under the limit for keeping a split in memory.
SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000)
HERE = Path(__file__).parent
PICTURE = "figures/scale.png"
_MIB = 2**20
_LIMIT = 1.5 * 1024  # MiB
_LARGE = ("data.train_size=1_000_000", "data.max_length=100")
_STEPS = 300


def measure(sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Train one epoch of the default run for each number of sequences, each in its own process.

    Returns:
        A row for each size: ``train_size`` (sequences), ``peak`` (MiB of resident memory, start-up to test),
        ``seconds`` (of the epoch, including validation) and ``sequences_per_second``.
    """
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _, peak = _train(Path(folder), [f"data.train_size={size}"])
            seconds = float(pd.read_csv(Path(folder) / "run" / "metrics.csv")["seconds"].iloc[0])
        rows.append((size, peak, seconds, size / seconds))
        print(f"{size:,} sequences  {peak:.0f} MiB  {seconds:.1f} s", flush=True)
    return pd.DataFrame(rows, columns=["train_size", "peak", "seconds", "sequences_per_second"])


def measure_start(overrides: Sequence[str] = _LARGE) -> dict[str, float]:
    """Start a large run twice, and interrupt it after its first step and after 300 steps.

    Returns:
        ``seconds`` from the command to the checkpoint after the first step, and ``peak`` (MiB of resident memory) of
        the run that was interrupted after 300 steps.
    """
    found = []
    for steps in (1, _STEPS):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "run" / "checkpoints" / "last.ckpt"
            found.append(_train(Path(folder), [*overrides, f"checkpoint.every_n_steps={steps}"], checkpoint.exists))
    (seconds, _), (_, peak) = found
    return {"seconds": seconds, "peak": peak}


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw memory and time against the number of sequences.

    Args:
        table: result of :func:`measure`.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    memory, time_taken = figure.subplots(1, 2)
    memory.plot(table["train_size"], table["peak"], "o-", label="peak resident memory")
    memory.axhline(_LIMIT, color="0.5", linestyle=":", label="1.5 GiB")
    memory.set_ylim(100, 3000)
    memory.set_ylabel("peak memory (MiB)")
    memory.set_title("Memory does not grow", fontsize=10)
    time_taken.plot(table["train_size"], table["seconds"], "o-", label="one epoch")
    proportional = table["seconds"].max() * table["train_size"] / table["train_size"].max()
    time_taken.plot(table["train_size"], proportional, ":", color="0.5", label="proportional")
    time_taken.set_ylabel("time of an epoch (s)")
    time_taken.set_title("Time grows in proportion", fontsize=10)
    for axis in (memory, time_taken):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("training sequences")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _train(
    folder: Path, overrides: Sequence[str], is_enough: Callable[[], bool] | None = None
) -> tuple[float, float]:
    """Train an epoch in folder/run, or interrupt it when ``is_enough()``; return the seconds and the peak in MiB."""
    command = [str(Path(sys.executable).with_name("grulab")), "train", *overrides]
    command += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    began = time.perf_counter()
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    expected = 0
    if is_enough is not None:
        while not is_enough():
            assert process.poll() is None, (folder / "output.log").read_text()
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        expected = 130
    seconds = time.perf_counter() - began
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == expected, (folder / "output.log").read_text()
    # Before exec, the memory of the parent process counts as the child's.
    assert usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "the measuring process is the larger"
    return seconds, usage.ru_maxrss * 1024 / _MIB


def main() -> None:
    table, start = measure(), measure_start()
    draw(table, HERE / PICTURE)
    cells = pd.DataFrame(
        {
            "training sequences": table["train_size"].map("{:,}".format),
            "peak memory (MiB)": table["peak"].map("{:.0f}".format),
            "one epoch (s)": table["seconds"].map("{:.1f}".format),
            "sequences a second": table["sequences_per_second"].map("{:,.0f}".format),
        }
    )
    epochs = (
        "`grulab train trainer.max_epochs=1 trainer.accelerator=cpu data.train_size=<training sequences>`: the whole "
        "run's largest resident memory, torch and Lightning included, and the seconds of its epoch in metrics.csv. "
        "Up to 64 MiB of features are kept in memory; more are generated by index, a few batches at a time.\n\n"
        f"![Memory and time against the number of training sequences]({PICTURE})"
    )
    large = (
        f"`grulab train {' '.join(_LARGE)} trainer.accelerator=cpu`: {start['seconds']:.1f} s from the command to "
        "the end of the first training step (until its checkpoint is there, with `checkpoint.every_n_steps=1`), and "
        f"{start['peak']:.0f} MiB at most in a run that is interrupted after {_STEPS} steps."
    )
    sections = [Section("One epoch", epochs, cells), Section("A million sequences of up to 100 steps", large)]
    text = "`python -m experiments.throughput.scale`, which takes some minutes."
    report = to_markdown("Scale", [Section("Command", text), *sections])
    (HERE / "scale.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
