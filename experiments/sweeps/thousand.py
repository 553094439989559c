"""A sweep of 1000 short jobs: the overhead of a job, and the time of resume and report.

python -m experiments.sweeps.thousand
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

from experiments.sweeps.harness import Sweep, processes_of

from grulab.system.cores import available_cores
from grulab.system.proc_status import anonymous_kibibytes

JOBS = 1000
ARGUMENTS = [
    "model.hidden_size=2,4,6,8",
    f"seed=range({JOBS // 4})",
    "data.train_size=64",
    "data.val_size=64",
    "data.test_size=64",
    "trainer.max_epochs=1",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began = time.perf_counter()
        sweep = Sweep(["train", "-m", *ARGUMENTS, "hydra.sweep.dir=sweep"], root, root / "log")
        memory: list[tuple[int, float, float]] = []
        while sweep.process.poll() is None:
            time.sleep(0.5)
            done = len(list((root / "sweep").glob("*/summary.json")))
            largest = max((_megabytes(pid) for pid in sweep.members() if pid != sweep.process.pid), default=0.0)
            memory.append((done, _megabytes(sweep.process.pid), largest))
        assert sweep.process.returncode == 0, (root / "log").read_text()[-2000:]
        wall = time.perf_counter() - began
        summaries = [json.loads(path.read_text()) for path in (root / "sweep").glob("*/summary.json")]
        assert len(summaries) == JOBS
        runs = [summary["seconds"] for summary in summaries]
        first = min(path.stat().st_mtime for path in (root / "sweep").glob("*/.owner"))
        last = max(path.stat().st_mtime for path in (root / "sweep").glob("*/summary.json"))
        slots = available_cores()
        overhead = (slots * (last - first) - sum(runs)) / JOBS
        processes = set(processes_of(root / "sweep"))
        early = [sizes for done, *sizes in memory if 50 < done <= 150]
        late = [sizes for done, *sizes in memory if JOBS - 100 <= done < JOBS]
        (parent, worker), (parent_late, worker_late) = (
            [statistics.median(column) for column in zip(*sizes, strict=True)] for sizes in (early, late)
        )
        resume, report = (_seconds([verb, "sweep"], root) for verb in ("resume", "report"))
    rows = [
        ["the whole sweep, start-up and report included", f"{wall:.0f} s"],
        ["a run, from its summary (median)", f"{1000 * statistics.median(runs):.0f} ms"],
        [f"beside it, for each job: slots ({slots}) × time - runs", f"{1000 * overhead:.0f} ms"],
        ["processes that ran the jobs", str(len(processes))],
        ["memory of the parent, median over the jobs 50 to 150", f"{parent:.0f} MB"],
        ["and over the last 100", f"{parent_late:.0f} MB"],
        ["memory of the larger of the two processes, over the jobs 50 to 150", f"{worker:.0f} MB"],
        ["and over the last 100", f"{worker_late:.0f} MB"],
        ["`grulab resume` of the finished sweep, its report included", f"{resume:.1f} s"],
        ["`grulab report`", f"{report:.1f} s"],
    ]
    lines = [
        "# A sweep of 1000 short jobs",
        "",
        f"`python -m experiments.sweeps.thousand`: {' '.join(ARGUMENTS)}",
        "",
        "| what | how much |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows),
    ]
    Path(__file__).with_name("thousand.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _seconds(arguments: list[str], root: Path) -> float:
    began = time.perf_counter()
    sweep = Sweep(arguments, root, root / "log")
    assert sweep.process.wait() == 0, (root / "log").read_text()[-2000:]
    return time.perf_counter() - began


def _megabytes(pid: int) -> float:
    return (anonymous_kibibytes(pid) or 0) / 1024


if __name__ == "__main__":
    main()
