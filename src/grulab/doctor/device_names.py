"""Print the names of all devices as JSON: ``python -m grulab.doctor.device_names``.

It imports torch alone, and in a process of its own: asking for devices may crash it, or make it useless for a fork.
"""

import json
import warnings

import torch


def device_names() -> list[str]:
    """Return all devices of this machine: "cpu", "cuda:0", ..., "mps"."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *mps]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(device_names()))
