"""A file of a million sequences: how long until the first training step, and how much memory.

    python -m experiments.throughput.large_file [--sequences 1000000] [--folder FOLDER]

It writes a Parquet file of several GB (sequences of 1 to 100 steps and 8 features), trains over it until the first
step, twice (parsed, then from the cache), trains one epoch of a small part and predicts the whole file, and writes
large_file.md. Memory is anonymous memory (RssAnon): the mapped arrays are the page cache's.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grulab.system.proc_status import anonymous_kibibytes

FEATURES, LONGEST, CLASSES, TOGETHER = 8, 100, 5, 20_000
TABLE = Path(__file__).with_name("large_file.md")
FIRST_STEP = """
import os, sys, time
from grulab.system.proc_status import anonymous_kibibytes
from grulab.training.module import SequenceClassifier
from grulab.cli import main

def stop(*_):
    print("FIRST", time.time(), anonymous_kibibytes() / 2**20, flush=True)
    os._exit(0)

SequenceClassifier.training_step = stop
sys.exit(main())
"""
GRULAB = "import sys; from grulab.cli import main; sys.exit(main())"


def write(path: Path, sequences: int) -> None:
    """Write the file, whose classes show in the means."""
    rng = np.random.default_rng(0)
    names = [f"f{column}" for column in range(FEATURES)]
    fields = [
        ("id", pa.int64()),
        ("time", pa.int32()),
        *((name, pa.float32()) for name in names),
        ("label", pa.string()),
    ]
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for start in range(0, sequences, TOGETHER):
            lengths = rng.integers(1, LONGEST + 1, min(TOGETHER, sequences - start))
            ids = np.repeat(np.arange(start, start + len(lengths)), lengths)
            time_ = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            values = rng.normal(size=(len(ids), FEATURES)).astype(np.float32) + (ids % CLASSES)[:, None] / 4
            columns = [
                ids,
                time_.astype(np.int32),
                *values.T.astype(np.float32),
                np.char.add("c", (ids % CLASSES).astype(str)),
            ]
            writer.write_table(pa.table(dict(zip([name for name, _ in fields], columns, strict=True))))


def first_step(folder: Path, path: Path) -> tuple[float, float]:
    """Return the seconds until the first step, and the anonymous memory then, in GiB."""
    began = time.time()
    process = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, "train", "data=files", f"data.path={path}", "trainer.accelerator=cpu"],
        cwd=folder, env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    for line in process.stdout.splitlines():
        if line.startswith("FIRST"):
            _, at, anonymous = line.split()
            return float(at) - began, float(anonymous)
    raise RuntimeError(process.stdout[-2000:] + process.stderr[-2000:])


def peak(folder: Path, *arguments: str) -> tuple[float, float]:
    """Return the seconds of a command, and the most anonymous memory that it had, in GiB."""
    began, most = time.time(), [0.0]
    process = subprocess.Popen(
        [sys.executable, "-c", GRULAB, *arguments], cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip

    def watch() -> None:
        while process.poll() is None:
            most[0] = max(most[0], (anonymous_kibibytes(process.pid) or 0) / 2**20)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait() != 0:
        raise RuntimeError(f"{arguments}: exit code {process.returncode}")
    watcher.join()
    return time.time() - began, most[0]


def main() -> None:
    """Measure, and write large_file.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10**6)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path, small = folder / "large.parquet", folder / "small.parquet"
        write(path, options.sequences)
        write(small, 5000)
        size = path.stat().st_size / 2**30
        parsed, again = first_step(folder, path), first_step(folder, path)
        train = ["train", "data=files", f"data.path={small}", "trainer.max_epochs=1", "hydra.run.dir=run"]
        peak(folder, *train, "trainer.accelerator=cpu")
        few = peak(folder, "predict", "run", str(small), "-o", "small.csv")
        all_ = peak(folder, "predict", "run", str(path), "-o", "all.csv")
    rows = [
        ("first step, parsed", *parsed),
        ("first step, from the cache", *again),
        ("grulab predict, 5,000 sequences", *few),
        (f"grulab predict, {options.sequences:,} sequences", *all_),
    ]
    lines = [
        "# A file of a million sequences",
        "",
        f"`python -m experiments.throughput.large_file --sequences {options.sequences}`: {options.sequences:,} "
        f"sequences of 1 to {LONGEST} steps and {FEATURES} features in Parquet, {size:.1f} GiB.",
        "",
        "| | seconds, start-up included | anonymous memory, GiB |",
        "|---|---|---|",
        *(f"| {what} | {seconds:.1f} | {memory:.2f} |" for what, seconds, memory in rows),
    ]
    TABLE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
