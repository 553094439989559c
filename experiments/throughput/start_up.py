"""Start-up of a run: the imports, with and without each of the two measures that shorten them.

    python -m experiments.throughput.start_up [--repeats 7]

prints the medians of wall time and processor time, in turn, each in a process of its own. The processor time is
steadier on a shared machine.
"""

import argparse
import statistics
import subprocess
import sys

_IMPORTS = "import torch.utils.tensorboard, grulab.training.run"
_PROGRAMS = {
    "quick_import, as grulab starts": (
        f"from grulab.system.quick_import import quick_import\nwith quick_import():\n    {_IMPORTS}"
    ),
    "with scipy.signal": f"import gc\ngc.disable()\n{_IMPORTS}",
    "with scipy.signal and the garbage collector": _IMPORTS,
}
_TIMED = "import time\nbegan = time.perf_counter()\n{}\nprint(time.perf_counter() - began, time.process_time())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    measured: dict[str, list[list[float]]] = {name: [] for name in _PROGRAMS}
    for _ in range(parser.parse_args().repeats):
        for name, program in _PROGRAMS.items():
            command = [sys.executable, "-c", _TIMED.format(program)]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            measured[name].append([float(seconds) for seconds in process.stdout.split()])
    quickest = 0.0
    for name, repeats in measured.items():
        wall, cpu = (statistics.median(column) for column in zip(*repeats, strict=True))
        quickest = quickest or cpu
        print(f"{name:45}  {wall:.2f} s, {cpu:.2f} s of the processor: {cpu / quickest:.2f} times")


if __name__ == "__main__":
    main()
