"""The slots of a sweep: the number of jobs that run at the same time, and the accelerator that each job sees."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from grulab.config.notes import notes_on_data, notes_on_options
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.kernels.backend import backend_notes, find_backend
from grulab.sweep.growth import of_any_seed
from grulab.sweep.jobs_per_device import jobs_on, size_of
from grulab.sweep.launcher_settings import LocalSettings
from grulab.system.cores import available_cores
from grulab.training.device import device_notes, find_accelerator

# (device, configuration, jobs that the cores allow) -> jobs at once.
_MEASURED: dict[tuple[str, str, int], int] = {}


def find_slots(configs: Sequence[Config], settings: LocalSettings, at_once: int | None = None) -> list[str | None]:
    """Return one slot for each job that runs at the same time: its value of CUDA_VISIBLE_DEVICES, or None on the CPU.

    On accelerators there are ``jobs_per_device`` slots for each device. On the CPU each job takes
    ``trainer.threads`` of the cores. On MPS there is one slot, if nothing else is said. If ``at_once`` is given,
    there are so many slots, on the devices in turn.

    Raises:
        ConfigError: if this machine lacks an accelerator that a job or the settings require.
    """
    # Most jobs have the same values of what decides, so each set of them is checked once.
    asked = {(c.trainer.accelerator, c.trainer.precision, c.model.sequences, c.model.backend): c for c in configs}
    accelerators = {find_accelerator(config) for config in asked.values()}
    if "cuda" in accelerators:
        if at_once is not None:
            devices = _device_slots(configs, replace(settings, jobs_per_device=1))
            return [devices[place % len(devices)] for place in range(at_once)]
        return list(_device_slots(configs, settings))
    if settings.devices is not None:
        raise ConfigError(f"hydra.launcher.devices={settings.devices}: the jobs run on the processor; leave it out")
    if "mps" in accelerators:
        # The value of CUDA_VISIBLE_DEVICES changes nothing there.
        return [""] * (at_once or settings.jobs_per_device or 1)
    if at_once is not None:
        return [None] * at_once
    cores = settings.cores or available_cores()
    return [None] * max(1, cores // max(config.trainer.threads for config in configs))


def _device_slots(configs: Sequence[Config], settings: LocalSettings) -> Sequence[str]:
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
    chosen = settings.devices if settings.devices is not None else list(range(count))
    if unknown := [index for index in chosen if index >= count]:
        raise ConfigError(
            f"hydra.launcher.devices={settings.devices}: there is no device {unknown[0]}, only {count} counted from 0"
        )
    jobs = settings.jobs_per_device
    if jobs is None:
        # Devices of one machine are mostly alike; the first stands for all.
        cores = (settings.cores or available_cores()) // len(chosen)
        jobs = _measured_jobs(names[chosen[0]], configs, cores)
    return [names[index] for index in chosen] * jobs


def _measured_jobs(device: str, configs: Sequence[Config], cores: int) -> int:
    """Measure the largest job, once in a command: a race or rungs launch several times."""
    largest = max(configs, key=size_of)
    at_most = cores // max(config.trainer.threads for config in configs)
    key = (device, of_any_seed(largest, is_of_rungs=True), at_most)
    if key not in _MEASURED:
        _MEASURED[key], why = jobs_on(device, largest, at_most)
        print(f"note: hydra.launcher.jobs_per_device=auto: {_MEASURED[key]} at once on a device: {why}")
    return _MEASURED[key]


def _notes_on(config: Config, accelerator: str) -> Iterator[str]:
    """Yield what a run of its own would note."""
    yield from notes_on_data(config)
    yield from notes_on_options(config)
    yield from backend_notes(config, accelerator, find_backend(config, accelerator), None)
    yield from device_notes(config, accelerator, config.trainer.loop)


def notes(configs: Sequence[Config], settings: LocalSettings, slots: Sequence[str | None]) -> list[str]:
    """Return one line for each thing that runs of their own would note, and each setting that has no effect."""
    on_processor = slots[0] is None
    accelerator = "cpu" if on_processor else "cuda" if slots[0] else "mps"
    counts = Counter(line for config in configs for line in dict.fromkeys(_notes_on(config, accelerator)))
    lines = [
        line if count == len(configs) else f"{line} (in {count} of {len(configs)} jobs)"
        for line, count in counts.items()
    ]
    if on_processor and settings.jobs_per_device is not None:
        lines.append(
            f"hydra.launcher.jobs_per_device={settings.jobs_per_device} has no effect: the jobs run on the "
            "processor, as many as hydra.launcher.cores and trainer.threads allow"
        )
    if not on_processor and settings.cores is not None and settings.jobs_per_device is not None:
        lines.append(f"hydra.launcher.cores={settings.cores} has no effect: the jobs run on accelerators")
    return lines
