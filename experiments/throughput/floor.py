"""The lower bound for a sweep: the work of the default sweep's 36 jobs in plain PyTorch loops.

python -m experiments.throughput.floor

Prints the seconds that one process takes to train the 36 models one after the other, with validation after each epoch
and the test, and how many of these seconds are spent in the kernels.
"""

import json
import os
import time

import torch
from torch import nn
from torch.nn import functional

from grulab.data.datamodule import SequenceDataModule
from grulab.kernels import fused
from grulab.sweep.compose_jobs import compose_sweep
from grulab.training.build import build_module


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    in_kernels = 0.0
    run_kernel = fused._run

    def timed(*args: object) -> None:
        nonlocal in_kernels
        began = time.perf_counter()
        # The arguments are handed through as they came.
        run_kernel(*args)  # type: ignore[arg-type]
        in_kernels += time.perf_counter() - began

    # Replaced for the lifetime of this process; mypy rejects assigning to a function of a module.
    fused._run = timed  # type: ignore[assignment]
    configs = compose_sweep(["experiment=architecture"]).configs
    datamodule = SequenceDataModule(configs[0].data, 0)
    for stage in ("fit", "test"):
        datamodule.setup(stage)
    began = time.perf_counter()
    for config in configs:
        torch.manual_seed(config.seed)
        module = build_module(config, datamodule.task)
        optimizer = module.configure_optimizers()
        datamodule.seed = config.seed
        for _ in range(config.trainer.max_epochs):
            for x, lengths, y in datamodule.train_dataloader():
                optimizer.zero_grad()
                # torch has no types for backward.
                functional.cross_entropy(module.model(x, lengths), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            evaluate(module.model, datamodule, "val")
        evaluate(module.model, datamodule, "test")
    print(json.dumps({"loops": time.perf_counter() - began, "kernels": in_kernels, "jobs": len(configs)}))


@torch.no_grad()
def evaluate(model: nn.Module, datamodule: SequenceDataModule, split: str) -> float:
    """Return the accuracy on a split."""
    loader = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    outcomes = [model(x, lengths).argmax(dim=1) == y for x, lengths, y in loader]
    return float(torch.cat(outcomes).float().mean())


if __name__ == "__main__":
    main()
