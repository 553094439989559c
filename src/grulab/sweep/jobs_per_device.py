"""How many jobs share an accelerator: as many as cores, memory and the share of time in which a job uses it allow."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from grulab.config.parameter_budget import parameter_count
from grulab.config.schema import Config
from grulab.system.child import ChildFailedError, in_child
from grulab.system.cores import available_cores

# What is left free for other programs and for batches that are longer than the measured one.
_RESERVE = 2**30
_WARM_UP, _TIMED = 5, 30
_LONGEST = 1000


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


def jobs_on(device: str, configs: Sequence[Config]) -> tuple[int, str]:
    """Return how many jobs to run at once on a device, and why, in words.

    The largest model of the sweep is trained for some steps in a process of its own, so that this one can still fork.

    Args:
        device: its value of CUDA_VISIBLE_DEVICES.
        configs: of the jobs.
    """
    config = max(configs, key=parameter_count)
    try:
        measured = in_child(_measure_on, device, config)
    except ChildFailedError as error:
        return 1, f"it could not be measured ({error})"
    return share(measured, available_cores() // config.trainer.threads)


def share(measured: Measured, cores: int) -> tuple[int, str]:
    """Return how many such jobs to run at once, and why, in words.

    Jobs take turns on a device: once it is always busy, more of them make nothing faster (measured for issue 14).
    """
    by_time = math.ceil(measured.step / max(measured.busy, 1e-9))
    by_memory = max(0, measured.free - _RESERVE) // max(measured.memory, 1)
    jobs = max(1, min(cores, by_time, by_memory))
    return jobs, (
        f"{cores} cores; memory for {by_memory} of the largest model; a step of it takes {1000 * measured.step:.2g} "
        f"ms and keeps the device busy for {measured.busy / measured.step:.0%} of that"
    )


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
    from grulab.tasks.registry import build_task
    from grulab.training.build import build_module

    task = build_task(config.data)
    is_cuda = device == "cuda"
    free = torch.cuda.mem_get_info()[0] if is_cuda else 0
    module = build_module(config, task).to(device)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    rows, steps = config.data.batch_size, min(task.length_range[1], _LONGEST)
    lengths = torch.full((rows,), steps)
    batch = PaddedBatch(torch.randn(rows, steps, task.num_features), lengths, torch.zeros(rows, dtype=torch.int64))
    batch = batch.to(device)
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(config.trainer.precision)

    def train(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            optimizer.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype is not None):
                loss = module.training_step(batch, 0)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / times

    train(_WARM_UP)
    step = train(_TIMED)
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as recorded:
        train(_TIMED)
    name = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    busy = sum(getattr(event, name) for event in recorded.key_averages()) / 1e6 / _TIMED
    memory = free - torch.cuda.mem_get_info()[0] if is_cuda else 0
    return Measured(step, busy, memory, free)
