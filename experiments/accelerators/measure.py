"""Everything about one accelerator, in one command; it writes results-ACCELERATOR.md.

    python -m experiments.accelerators.measure --accelerator cuda [PART ...]

The parts are doctor, speed, graphs, jobs, leaderboard, resume and suite; without any, all are measured in this order.
Each part that ends is written at once, so a machine that is rented by the minute loses nothing.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
import pandas as pd
import torch
from experiments.sweeps.harness import leaderboard
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.utils.data import DataLoader

from grulab import compose, train
from grulab.data.batch import PaddedBatch
from grulab.doctor.device_report import steps_per_second
from grulab.report.sections import Section, to_markdown
from grulab.system.cores import available_cores
from grulab.training.device_check import CLASSES, FEATURES, random_batch

HERE = Path(__file__).parent
GRULAB = [sys.executable, "-c", "import sys; from grulab.cli import main; sys.exit(main())"]
SWEEP = ["train", "-m", "experiment=architecture"]
# (steps, units, batch).
SIZES = ((10, 8, 32), (100, 64, 32), (100, 256, 256))
REPEATS = 3
JOBS = (1, 2, 4, 8, 16)
_STEPS_OF_LIGHTNING = 100


def run(*words: str, folder: Path) -> float:
    """Run ``grulab`` in a folder; return its seconds."""
    began = time.perf_counter()
    process = subprocess.run([*GRULAB, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return time.perf_counter() - began


def doctor(accelerator: str, folder: Path) -> Section:
    """Return what ``grulab doctor`` prints."""
    process = subprocess.run([*GRULAB, "doctor"], cwd=folder, capture_output=True, text=True, check=False)
    text = "\n".join(line.rstrip() for line in process.stdout.strip().splitlines())
    return Section("grulab doctor", f"It ended with {process.returncode}:\n\n```\n{text}\n```")


def compare_leaderboards(accelerator: str, folder: Path) -> Section:
    """Compare the default sweep over packed and over padded sequences."""
    boards = {}
    for sequences in ("packed", "padded"):
        words = [f"trainer.accelerator={accelerator}", f"model.sequences={sequences}"]
        run(*SWEEP, *words, f"hydra.sweep.dir={sequences}", folder=folder)
        board = pd.read_csv(folder / sequences / "leaderboard.csv")
        boards[sequences] = board.set_index([column for column in board.columns if column.startswith("model.")])
    table = pd.DataFrame({name: board["val/accuracy"] for name, board in boards.items()})
    table["difference"] = table["padded"] - table["packed"]
    largest = table["difference"].abs().max()
    is_same_first = table["packed"].idxmax() == table["padded"].idxmax()
    text = (
        f"The default sweep, 36 jobs: the largest difference of a mean is {largest:.4f} (bar: 0.005); the first is "
        f"{'the same' if is_same_first else 'ANOTHER'}."
    )
    return Section("Padded against packed", text, table.reset_index().round(4))


def speed(accelerator: str, folder: Path) -> Section:
    """Return training steps a second of each way to compute, of cuDNN alone and of an ordinary Lightning module."""
    device = "cuda:0" if accelerator == "cuda" else accelerator
    paths = {"cuda": ["packed", "padded", "graphs"], "cpu": ["kernels", "packed", "padded"]}.get(
        accelerator, ["padded"]
    )
    ways: dict[str, Callable[..., float]] = {
        f"grulab, {path}": lambda *size, path=path: steps_per_second(device, path, *size) for path in paths
    }
    ways["torch: nn.GRU over full-length batches, forward and backward only"] = lambda *size: _bare(device, *size)
    ways["an ordinary Lightning module, packed"] = lambda *size: _lightning(accelerator, folder, *size)
    columns: dict[str, list[str]] = {"computed by": list(ways)}
    for size in SIZES:
        # In turn, so that what else the machine does meets all alike.
        rates = [{name: way(*size) for name, way in ways.items()} for _ in range(REPEATS)]
        title = f"{size[0]} steps x {size[1]} units, batch {size[2]}"
        columns[title] = [f"{statistics.median(rate[name] for rate in rates):,.1f}" for name in ways]
    text = f"Training steps a second in 32-true, one layer; medians of {REPEATS}, measured in turn, one thread."
    return Section("Speed", text, pd.DataFrame(columns))


def _bare(device: str, steps: int, hidden_size: int, batch: int) -> float:
    gru = nn.GRU(FEATURES, hidden_size, batch_first=True).to(device)
    x, _, _ = random_batch(batch, steps)
    x = x.to(device)

    def step() -> None:
        gru.zero_grad()
        gru(x)[1].sum().backward()

    return _rate(step, device)


def _rate(step: Callable[[], object], device: str, seconds: float = 0.5) -> float:
    step()
    step()
    began, count = _now(device), 0
    while count < 2 or time.perf_counter() - began < seconds:
        step()
        count += 1
    return count / (_now(device) - began)


def _now(device: str) -> float:
    if device != "cpu":
        getattr(torch, device.partition(":")[0]).synchronize()
    return time.perf_counter()


class _Ordinary(L.LightningModule):
    """A GRU as most people write it."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(FEATURES, hidden_size, batch_first=True), nn.Linear(hidden_size, CLASSES)

    def training_step(self, batch: PaddedBatch, batch_idx: int) -> STEP_OUTPUT:
        """Return the loss."""
        x, lengths, y = batch
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        loss = nn.functional.cross_entropy(self.head(self.gru(packed)[1][-1]), y)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(y))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def _lightning(accelerator: str, folder: Path, steps: int, hidden_size: int, batch: int) -> float:
    size = max(2, _STEPS_OF_LIGHTNING if hidden_size * batch < 10_000 else 4)
    batches = [PaddedBatch(*random_batch(batch, steps)) for _ in range(size)]
    trainer = L.Trainer(
        accelerator=accelerator, max_epochs=2, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, default_root_dir=folder, callbacks=[clock := _Clock()],
    )  # fmt: skip
    # A list is a dataset, though not by its type.
    trainer.fit(_Ordinary(hidden_size), DataLoader(cast(Any, batches), batch_size=None))
    return size / clock.seconds


class _Clock(L.Callback):
    """The seconds of the second epoch."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = _now(pl_module.device.type)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = _now(pl_module.device.type) - self._began


def jobs(accelerator: str, folder: Path) -> Section:
    """Return the seconds of the default sweep with several jobs on a device, and with jobs_per_device=auto."""
    if accelerator != "cuda":
        return Section("Jobs on one device", "Only CUDA devices are shared by jobs.")
    rows = []
    for number in (*JOBS, "auto"):
        words = [f"trainer.accelerator={accelerator}", f"hydra.launcher.jobs_per_device={number}"]
        seconds = run(*SWEEP, *words, f"hydra.sweep.dir=jobs-{number}", folder=folder)
        same = leaderboard(folder / f"jobs-{number}") == leaderboard(folder / f"jobs-{JOBS[0]}")
        rows.append(
            {"jobs_per_device": number, "seconds": f"{seconds:.1f}", "leaderboard": "same" if same else "ANOTHER"}
        )
    rows.append({"jobs_per_device": f"{available_cores()} cores of the CPU", "seconds": f"{_on_cpu(folder):.1f}"})
    return Section(
        "Jobs on one device", "The default sweep, start-up and report included.", pd.DataFrame(rows).fillna("")
    )


def _on_cpu(folder: Path) -> float:
    return run(*SWEEP, "trainer.accelerator=cpu", "hydra.sweep.dir=on-cpu", folder=folder)


def graphs(accelerator: str, folder: Path) -> Section:
    """Compare whole runs with and without ``trainer.cuda_graphs``: seconds of an epoch, and bits when repeated."""
    if accelerator != "cuda":
        return Section("CUDA graphs", "There are none on this device.")
    from experiments.exact_resume.harness import differences

    cases = {
        "default": [],
        "temporal_order hard, 64 units": ["data=temporal_order", "data.level=hard", "model.hidden_size=64"],
    }
    rows = []
    for name, overrides in cases.items():
        seconds = {}
        for label in ("without", "with", "again"):
            config = compose([
                *overrides, "trainer.accelerator=cuda", "model.sequences=padded", "trainer.max_epochs=3",
                f"trainer.cuda_graphs={str(label != 'without').lower()}",
            ])  # fmt: skip
            place = folder / f"{name[:4]}-{label}"
            train(config, place)
            seconds[label] = pd.read_csv(place / "metrics.csv")["seconds"].iloc[1:].median()
        found = differences(folder / f"{name[:4]}-with", folder / f"{name[:4]}-again")
        rows.append(
            {"run": name} | {k: f"{v:.3f}" for k, v in seconds.items()} | {"twice": ", ".join(found) or "same bits"}
        )
    return Section("CUDA graphs", "Seconds of an epoch, without and with trainer.cuda_graphs.", pd.DataFrame(rows))


def resume(accelerator: str, folder: Path) -> Section:
    """Kill and resume runs on the device, as ``experiments.exact_resume`` does."""
    words = [sys.executable, "-m", "experiments.exact_resume.measure", "--accelerator", accelerator]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    (line,) = [line for line in process.stdout.splitlines() if "differ.**" in line] or [process.stderr[-500:]]
    return Section("Exact resume", line)


def suite(accelerator: str, folder: Path) -> Section:
    """Run the tests with this accelerator."""
    workers = str(max(2, available_cores() - 3))
    words = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--accelerator", accelerator]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    failed = [line for line in process.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    last = (process.stdout.strip().splitlines() or ["nothing"])[-1]
    return Section("The tests", "\n\n".join([f"`pytest --accelerator {accelerator}`: {last}", *failed]))


PARTS = {
    "doctor": doctor,
    "speed": speed,
    "graphs": graphs,
    "jobs": jobs,
    "leaderboard": compare_leaderboards,
    "resume": resume,
    "suite": suite,
}


def main() -> None:
    """Measure the parts, and write each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", choices=["cuda", "cpu", "mps"])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    path = HERE / f"results-{options.accelerator}.md"
    store = HERE / f".results-{options.accelerator}.json"
    done: dict[str, str] = json.loads(store.read_text()) if store.is_file() else {}
    for part in options.parts or PARTS:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                section = PARTS[part](options.accelerator, Path(folder))
            # The other parts are worth having all the same.
            except Exception as error:
                section = Section(part, f"FAILED: {type(error).__name__}: {str(error)[:500]}")
        note = f"`python -m experiments.accelerators.measure --accelerator {options.accelerator} {part}`, "
        note += f"{time.perf_counter() - began:.0f} s."
        text = to_markdown("", [Section(section.title, f"{note}\n\n{section.text}", section.table)])
        done[part] = text.removeprefix("# \n\n")
        print(done[part], flush=True)
        store.write_text(json.dumps(done))
        path.write_text(
            "\n".join([f"# Results on {options.accelerator}\n", *(done[name] for name in PARTS if name in done)])
        )


if __name__ == "__main__":
    main()
