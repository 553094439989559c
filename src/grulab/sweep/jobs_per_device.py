"""How many jobs share an accelerator: as many as cores, memory and the share of time in which a job uses it allow."""

import math
import os
import time
from dataclasses import dataclass

from grulab.config.schema import Config
from grulab.system.child import ChildFailedError, in_child
from grulab.tasks.registry import build_task

# What is left free for other programs and for batches that are longer than the measured ones.
_RESERVE = 2**30
# What a process takes on a device before its first tensor, and what its libraries take later (0.7 GiB on an H200).
_CONTEXT = 2**30
_WARM_UP, _TIMED = 5, 30
# Steps of the measured sequences, and seconds that the measurement may take.
_LONGEST, _SECONDS = 1000, 120.0


@dataclass(frozen=True)
class Measured:
    """One job alone on a device.

    Attributes:
        step: seconds of a training step.
        busy: seconds of it in which the device computes.
        memory: bytes that the job holds on the device, libraries included.
        free: bytes of the device that are free without it.
    """

    step: float
    busy: float
    memory: int
    free: int


def jobs_on(device: str, config: Config, cores: int) -> tuple[int, str]:
    """Return how many jobs to run at once on a device, and why, in words.

    The job is trained for some steps in a process of its own, so that this one can still fork.

    Args:
        device: its value of CUDA_VISIBLE_DEVICES.
        config: of the largest job.
        cores: as many jobs may run at once by the cores.
    """
    try:
        measured = in_child(_measure_on, device, config, seconds=_SECONDS)
    except ChildFailedError as error:
        return 1, f"it could not be measured ({error})"
    return share(measured, cores)


def share(measured: Measured, cores: int) -> tuple[int, str]:
    """Return how many such jobs to run at once, and why, in words.

    Jobs take turns on a device: once it is always busy, more of them make nothing faster (measured for issue 14).
    """
    by_time = math.ceil(measured.step / max(measured.busy, 1e-9))
    by_memory = max(0, measured.free - _RESERVE) // max(measured.memory, 1)
    jobs = max(1, min(cores, by_time, by_memory))
    return jobs, (
        f"{cores} cores; memory for {by_memory} of the largest; a step of it takes {1000 * measured.step:.2g} ms and "
        f"keeps the device busy for {measured.busy / measured.step:.0%} of that"
    )


def size_of(config: Config) -> int:
    """Return what the memory of a job on a device is about proportional to: the number of states of a batch."""
    model, longest = config.model, build_task(config.data).length_range[1]
    states = model.hidden_size * model.num_layers * (2 if model.bidirectional else 1)
    return config.data.batch_size * longest * states


def _measure_on(device: str, config: Config) -> Measured:
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    return measure(config, "cuda")


def measure(config: Config, device: str) -> Measured:
    """Train the model of a run for some steps on random sequences of its task's length.

    Args:
        config: of the run.
        device: "cuda", or "cpu" in tests.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    from grulab.data.batch import PaddedBatch
    from grulab.data.datamodule import SequenceDataModule
    from grulab.training.build import build_module, set_tf32
    from grulab.training.cuda_graphs import GraphedSteps
    from grulab.training.device import has_graphs
    from grulab.training.device_check import AUTOCAST
    from grulab.training.optimizer import make_optimizer

    torch.set_num_threads(config.trainer.threads)
    set_tf32(config)
    task, is_cuda = build_task(config.data), device == "cuda"
    if is_cuda:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    free = torch.cuda.mem_get_info()[0] if is_cuda else 0
    module = build_module(config, task).to(device)
    optimizer = make_optimizer(module.parameters(), "adam", config.optimizer.lr, 0.0, fused=True)
    rows, steps = config.data.batch_size, min(task.length_range[1], _LONGEST)
    dtype = AUTOCAST.get(config.trainer.precision)
    with_graphs = has_graphs(config, device, config.trainer.loop)
    graphs = GraphedSteps(module, optimizer, rows, steps) if with_graphs else None

    def train(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            if graphs is not None:
                graphs(on_cpu)
                continue
            optimizer.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype is not None):
                loss = module.training_step(batch, 0)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / times

    def random_batch(rows: int) -> PaddedBatch:
        x = torch.randn(rows, steps, task.num_features, dtype=module.model.head.weight.dtype)
        return PaddedBatch(x, torch.full((rows,), steps), torch.zeros(rows, dtype=torch.int64))

    with torch.inference_mode():
        # A larger batch, which may need more memory than training does.
        module.validation_step(random_batch(SequenceDataModule(config.data, 0).evaluation_batch_size()).to(device), 0)
    on_cpu = random_batch(rows)
    batch = on_cpu.to(device)
    train(_WARM_UP)
    step = train(_TIMED)
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as recorded:
        train(_TIMED)
    name = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    busy = sum(getattr(event, name) for event in recorded.key_averages()) / 1e6 / _TIMED
    held = free - torch.cuda.mem_get_info()[0] if is_cuda else 0
    memory = _CONTEXT + held * task.length_range[1] // steps
    return Measured(step, busy, memory, free + _CONTEXT)
