"""The processor cores that this process may use."""

import math
import os
from pathlib import Path


def available_cores() -> int:
    """Return the number of cores that the CPU affinity and the container's quota allow this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        # The file is missing or holds "max": there is no quota.
        return cores
