"""Trains one run with one of five contenders, and prints its times.

python -m experiments.throughput.runs CONTENDER [OVERRIDES]

The time of a training epoch runs from the module's ``on_train_epoch_start`` to its ``on_validation_start``: all
steps and the work between them. The whole run is everything but imports.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from torch.nn import functional

from grulab.config.compose import compose
from grulab.config.schema import Config
from grulab.data.datamodule import SequenceDataModule
from grulab.tasks.sinusoids import SinusoidsConfig
from grulab.training.build import build_module
from grulab.training.module import SequenceClassifier
from grulab.training.run import train

CONTENDERS = ("grulab", "bare loop", "bare loop, nn.GRU", "barebones", "ordinary")
_BAREBONES_WARNINGS = (".*barebones.*", ".*does not have many workers", ".*isinstance.treespec, LeafSpec.")


class Stopwatch:
    """Measures the time of every training epoch of a LightningModule."""

    def __init__(self, module: type[L.LightningModule]) -> None:
        self.epochs: list[float] = []
        self._began = 0.0
        self._wrap(module, "on_train_epoch_start", self._start)
        self._wrap(module, "on_validation_start", self._stop)

    def _start(self) -> None:
        self._began = time.perf_counter()

    def _stop(self) -> None:
        # Lightning's sanity check runs validation before the first epoch.
        if self._began:
            self.epochs.append(time.perf_counter() - self._began)

    @staticmethod
    def _wrap(module: type[L.LightningModule], name: str, then: Callable[[], None]) -> None:
        hook = getattr(module, name)

        def wrapped(self: L.LightningModule) -> None:
            hook(self)
            then()

        setattr(module, name, wrapped)


def run_grulab(config: Config, folder: Path) -> list[float]:
    """Run grulab with everything on: TensorBoard, metrics.csv, progress, checkpoints, validation, test, summary."""
    watch = Stopwatch(SequenceClassifier)
    train(config, folder)
    return watch.epochs


def run_barebones(config: Config, folder: Path) -> list[float]:
    """Run Lightning's own loop with everything off, with the same module, kernels, batches and validation."""
    for message in _BAREBONES_WARNINGS:
        warnings.filterwarnings("ignore", message)
    watch = Stopwatch(SequenceClassifier)
    L.seed_everything(config.seed, verbose=False)
    datamodule = SequenceDataModule(config.data, config.seed)
    module = build_module(config, datamodule.task)
    L.Trainer(max_epochs=config.trainer.max_epochs, accelerator="cpu", barebones=True).fit(module, datamodule)
    return watch.epochs


def run_bare(config: Config, folder: Path) -> list[float]:
    """Run a plain PyTorch loop over the same batches: forward, loss, backward, optimizer; no validation."""
    torch.manual_seed(config.seed)
    datamodule = SequenceDataModule(config.data, config.seed)
    module = build_module(config, datamodule.task)
    model, optimizer = module.model, module.configure_optimizers()
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    seconds = []
    for _ in range(config.trainer.max_epochs):
        began = time.perf_counter()
        for x, lengths, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(x, lengths), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


def run_ordinary(config: Config, folder: Path) -> list[float]:
    """Run an ordinary LightningModule under a default Trainer; see ``experiments/sweeps/ordinary/``."""
    from experiments.sweeps.ordinary.model import GRUModule, make_loaders

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    watch = Stopwatch(GRUModule)
    L.seed_everything(config.seed, verbose=False)
    data = config.data
    assert isinstance(data, SinusoidsConfig)
    loaders = make_loaders(data)
    model = config.model
    module = GRUModule(model.hidden_size, model.num_layers, model.bidirectional, config.optimizer.lr)
    trainer = L.Trainer(max_epochs=config.trainer.max_epochs, default_root_dir=folder)
    trainer.fit(module, loaders["train"], loaders["val"])
    trainer.test(module, loaders["test"], ckpt_path="best")
    return watch.epochs


def main(contender: str, overrides: list[str]) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if contender == "bare loop, nn.GRU":
        overrides = [*overrides, "model.backend=torch"]
    config = compose(["trainer.accelerator=cpu", *overrides])
    run = {"grulab": run_grulab, "barebones": run_barebones, "ordinary": run_ordinary}.get(contender, run_bare)
    stdout, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        epochs = run(config, Path(folder) / "run")
        seconds = time.perf_counter() - began
    print(json.dumps({"run": seconds, "epochs": epochs}), file=stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    main(arguments.contender, arguments.overrides)
