"""What a command needs of the machine that computes, checked before Hydra creates a folder."""

from collections.abc import Sequence
from dataclasses import replace

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.data.workers import refuse_missing_workers
from grulab.kernels.backend import refuse_missing_kernels
from grulab.sweep.launcher_settings import LocalSettings
from grulab.system.quick_import import quick_import
from grulab.tasks.registry import build_task

# The precisions that every device supports.
_ANYWHERE = ("32-true", "bf16-mixed")


def check_machine(config: Config) -> None:
    """Check that this machine, which executes the run, has its data, workers, device, precision and kernels.

    Raises:
        ConfigError: if one of them is missing.
    """
    build_task(config.data)
    refuse_missing_kernels(config)
    refuse_missing_workers(config.data.num_workers)
    trainer = config.trainer
    # Only these settings need torch for the check.
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices != 1 or trainer.precision not in _ANYWHERE:
        from grulab.training.device import find_accelerator

        find_accelerator(config)


def check_machine_of_jobs(configs: Sequence[Config], settings: LocalSettings) -> None:
    """Check that this machine has what the jobs of a sweep need.

    Raises:
        ConfigError: if something is missing, or a job's ``trainer.devices`` is not 1.
    """
    # Most jobs have the same values of what a check asks for, and a sweep may have thousands.
    different = {repr((c.data, c.trainer, c.model.backend, c.model.sequences)): c for c in configs}
    for config in different.values():
        if config.trainer.devices != 1:
            raise ConfigError(
                f"trainer.devices={config.trainer.devices}: in a sweep each job sees one device; "
                f"hydra.launcher.devices={config.trainer.devices} says which there are"
            )
        check_machine(config)
    if settings.devices is not None:
        with quick_import():
            from grulab.sweep.slots import find_slots

        # How many jobs share a device is measured when the sweep starts.
        find_slots(configs, replace(settings, jobs_per_device=1))
