"""Time a sweep over a person's file against the same sweep over a synthetic task of the same sizes.

    python -m experiments.real_data.speed [--data FOLDER] [--pairs 5] [--epochs 5]

Both sweeps have the same 12 models, in turn, start-up included, after one warm-up each. Writes speed.md. On a busy
machine the processor time is steadier than the wall time.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
from experiments.real_data.datasets import NAMES, training_files
from experiments.real_data.measure import BOTH, GRULAB, LAYERS, SIZE

from grulab.report.sections import Section, to_markdown

HERE = Path(__file__).parent
NAME = "JapaneseVowels"
BAR = 1.3
MODELS = [f"{SIZE}=16,32,64", f"{LAYERS}=1,2", f"{BOTH}=false,true", "optimizer.lr=0.01", "trainer.accelerator=cpu"]
# As many sequences as the file has after 36 of its 270 training sequences were taken for validation.
SYNTHETIC = [
    *("data=sinusoids", "data.train_size=234", "data.val_size=36", "data.test_size=370"),
    *("data.min_length=7", "data.max_length=29", "data.num_features=12"),
    f"data.frequencies=[{','.join(f'{0.05 * number:.2f}' for number in range(1, 10))}]",
]
FILE, SAME_SIZES = "the file", "synthetic, same sizes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the .ts files; default: those of aeon")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    of_file = ["data=files", f"data.path={training_files(options.data)[NAME].absolute()}"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # The sequences and the simple classifiers are kept in a cache, which only the warm-up finds empty.
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for pair in range(options.pairs + 1):
            for name, data in ((SAME_SIZES, SYNTHETIC), (FILE, of_file)):
                arguments = [*data, *MODELS, f"trainer.max_epochs={options.epochs}"]
                wall, processor = sweep(arguments, Path(folder) / f"{name.split()[-1]}-{pair}")
                rows.append([name, pair, wall, processor])
                print(f"{pair}  {name}  {wall:.2f} s, {processor:.2f} s of the processor", flush=True)
    table = pd.DataFrame(rows, columns=["data", "pair", "seconds", "processor"])
    text = report(table, options.epochs)
    (HERE / "speed.md").write_text(text, encoding="utf-8")
    print(text)


def sweep(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Run a sweep; return its wall time, and the processor time of all its processes, in seconds."""
    command = [*GRULAB, "train", "-m", *arguments, f"hydra.sweep.dir={folder}"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, (process.stdout + process.stderr)[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(table: pd.DataFrame, epochs: int) -> str:
    pairs = table[table["pair"] > 0].pivot(index="pair", columns="data")
    rows = []
    for measure, words in (("seconds", "wall time"), ("processor", "processor time of all processes")):
        columns = [pairs[measure][name] for name in (SAME_SIZES, FILE)]
        ratios = columns[1] / columns[0]
        cells = [f"{column.median():.1f} ({column.min():.1f} to {column.max():.1f})" for column in columns]
        rows.append([words, *cells, f"{ratios.median():.2f} ({ratios.min():.2f} to {ratios.max():.2f})"])
    first = table[(table["pair"] == 0) & (table["data"] == FILE)].iloc[0]
    text = (
        f"`grulab train -m {' '.join(MODELS)} trainer.max_epochs={epochs}`: 12 models, start-up included, over "
        f"{NAMES[NAME]} (`data=files`), and over a synthetic task with as many sequences, features and classes "
        f"(`{' '.join(SYNTHETIC)}`). {len(pairs)} pairs in turn after a warm-up, medians, lowest and highest. "
        f"At most {BAR} times was asked for.\n\n"
        f"The first sweep over the file, which has to be parsed then, took {first['seconds']:.1f} s, "
        f"{first['processor']:.1f} s of the processor."
    )
    shown = pd.DataFrame(rows, columns=["", f"{SAME_SIZES} (s)", f"{FILE} (s)", "times, of the pairs"])
    return to_markdown("Time of a sweep over a file", [Section("Pairs", text, shown)])


if __name__ == "__main__":
    main()
