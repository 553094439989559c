"""The processor cores that this process may use."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# What SLURM has granted, also where it does not bind a task to its cores.
_OF_TASK, _ON_NODE = "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"


def available_cores() -> int:
    """Return the number of cores that the CPU affinity, the container's quota and SLURM allow this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A batch script is one process, which has the cores of all its tasks on the node until srun starts them.
    is_batch_of_many = os.environ.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_ID" not in os.environ
    names = [_ON_NODE] if is_batch_of_many else [_OF_TASK, _ON_NODE]
    granted = next((os.environ[name] for name in names if name in os.environ), "")
    limits = [int(granted)] if re.fullmatch(r"[1-9][0-9]{0,5}", granted) else []
    return min([cores, *limits, *_quotas()])


def _quotas() -> Iterator[int]:
    """Yield the limit of each control group, version 2, that this process is in."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        own = ""
    folder = _CGROUPS / own
    for place in (folder, *folder.parents):
        if place != _CGROUPS and _CGROUPS not in place.parents:
            return
        try:
            quota, period = (place / "cpu.max").read_text().split()
            yield math.ceil(int(quota) / int(period))
        except (OSError, ValueError):
            # The file is missing or holds "max": there is no quota.
            continue
