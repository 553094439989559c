"""Run a slice of a sweep with the local launcher: what one task of a scheduler does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.check_machine import check_machine_of_jobs
from grulab.sweep.hydra_jobs import HydraParts, refuse_failed
from grulab.sweep.launcher import launch
from grulab.sweep.launcher_settings import settings_of_slice
from grulab.sweep.live_table import many
from grulab.sweep.slices import parse_slice
from grulab.sweep.status import result_of
from grulab.system.signals import Interrupted


def run_slice(parts: HydraParts, text: str, slots: int | None, skip: Sequence[int]) -> list[JobReturn]:
    """Run the jobs of a slice that are not done, on this machine.

    Neither sweep.json nor anything else beside the folders of these jobs is written: other slices run meanwhile.

    Args:
        parts: what Hydra passed to the sweeper.
        text: the slice, such as ``0/4``.
        slots: the number of jobs that run at the same time; None takes what the machine allows.
        skip: numbers of jobs to leave out.

    Returns:
        The result of each job.

    Raises:
        ConfigError: if the sweep has no jobs, or this machine lacks what they need.
        SweepFailedError: if jobs failed.
        Interrupted: after a signal, when the running jobs have saved their state.
    """
    slice_ = parse_slice(text)
    sweep_dir = Path(parts.config.hydra.sweep.dir)
    known = manifest.read(sweep_dir, slice_)
    first = known if known is None or known.jobs else manifest.read(sweep_dir, {0})
    if known is None or first is None or not first.jobs:
        raise ConfigError(f"{display_path(sweep_dir)}: has no jobs; those of a search come with grulab resume")
    for line in manifest.what_changed(known):
        print(f"warning: {line}")
    section = parts.config.hydra.launcher
    if not isinstance(section, DictConfig):
        raise ConfigError("hydra.launcher: must be a group of keys; leave it out")
    values = cast(dict[str, Any], OmegaConf.to_container(section, resolve=True))
    settings = settings_of_slice(values)
    jobs = [job for job in known.jobs if job.number not in skip]
    if all(result_of(sweep_dir / job.folder, job.config) is not None for job in jobs):
        print(f"slice {slice_}: nothing to do, {many(len(jobs), 'job')} of it done")
    check_machine_of_jobs([job.config for job in jobs], settings)
    try:
        returned = launch(parts, settings, jobs, at_once=slots)
    except Interrupted:
        if any(result_of(sweep_dir / job.folder, job.config) is None for job in jobs):
            raise
        # It came with the end of the last job, and there is nothing to come again for.
        return []
    refuse_failed(returned, sweep_dir, len(returned))
    return returned
