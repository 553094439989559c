"""Ten thousand jobs: planned, read by a slice, and reported when all are done.

python -m experiments.sweeps.ten_thousand [FOLDER]

Running them would take an hour and say nothing more: forty are run, and the folders of the others are theirs with
another seed and other results.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from grulab.run_folder.summary import read_summary, write_summary
from grulab.sweep import manifest
from grulab.sweep.slices import Slice

JOBS = 10_000
_SIZES = ["model.hidden_size=4,8,16,32"]
_ARGUMENTS = ["data.train_size=64", "data.val_size=64", "data.test_size=64", "trainer.max_epochs=3"]
_RUN = 40
_TIMES = 3
_SLICES = 100


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    seeds = [f"seed=range({JOBS // 4})"]
    planned = [
        _measured(["train", "-m", *_SIZES, *seeds, *_ARGUMENTS, "--only-write"], root, "plan") for _ in range(_TIMES)
    ]
    sweep = root / "plan"
    began = time.perf_counter()
    slice_ = manifest.read(sweep, Slice(0, _SLICES))
    read = time.perf_counter() - began
    assert slice_ is not None
    assert len(slice_.jobs) == JOBS // _SLICES
    _fill(sweep, root / "real")
    files = [path for path in (root / "real" / slice_.jobs[0].folder).rglob("*") if path.is_file()]
    report, memory = _measured(["report", "plan"], root)
    rows = [
        ["composing, checking and writing, median of 3", f"{median(seconds for seconds, _ in planned):.1f} s"],
        ["its memory", f"{max(size for _, size in planned):.0f} MB"],
        ["sweep.json", f"{(sweep / 'sweep.json').stat().st_size / 1e6:.1f} MB"],
        [f"read by a slice of {_SLICES}", f"{read:.2f} s"],
        [f"`grulab report` over {JOBS:,} finished jobs", f"{report:.0f} s"],
        ["its memory", f"{memory:.0f} MB"],
        ["files of a job of the local launcher", str(len(files))],
    ]
    lines = [
        f"# A sweep of {JOBS:,} jobs",
        "",
        "`python -m experiments.sweeps.ten_thousand`",
        "",
        "| what | how much |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows),
    ]
    Path(__file__).with_name("ten_thousand.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if len(sys.argv) == 1:
        shutil.rmtree(root)


def _measured(arguments: list[str], root: Path, folder: str = "") -> tuple[float, float]:
    """Run a command in a process of its own; return its seconds, and its memory in MB."""
    if folder:
        shutil.rmtree(root / folder, ignore_errors=True)
        arguments = [*arguments, f"hydra.sweep.dir={folder}"]
    program = str(Path(sys.executable).with_name("grulab"))
    code = (
        "import resource, subprocess, sys, time; began = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3)"
    )
    command = [sys.executable, "-c", code, program, *arguments]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    seconds, size = map(float, output.stdout.split())
    return seconds, size


def _fill(sweep: Path, real: Path) -> None:
    """Give every job of a sweep the folder of a finished one."""
    _measured(["train", "-m", *_SIZES, f"seed=range({_RUN // 4})", *_ARGUMENTS], real.parent, real.name)
    known, ran = manifest.read(sweep), manifest.read(real)
    assert known is not None
    assert ran is not None
    of_size: dict[int, list[Path]] = {}
    for job in ran.jobs:
        of_size.setdefault(job.config.model.hidden_size, []).append(real / job.folder)
    generator = random.Random(0)
    for job in known.jobs:
        folder = sweep / job.folder
        shutil.copytree(generator.choice(of_size[job.config.model.hidden_size]), folder)
        summary = read_summary(folder)
        assert summary is not None
        shift = generator.gauss(0, 0.02)
        metrics = {
            key: min(1.0, max(0.0, value + shift)) if "accuracy" in key else value
            for key, value in summary["metrics"].items()
        }
        values = {"config": job.config.to_dict(), "config_hash": job.config.hash(), "seed": job.config.seed}
        write_summary(folder, summary | values | {"metrics": metrics})


if __name__ == "__main__":
    main()
