"""The processor cores that this process may use."""

import math
import os
from pathlib import Path


def available_cores() -> int:
    """Return the number of cores that affinity and a container's quota leave to this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        # No such file, or "max": there is no quota.
        return cores
