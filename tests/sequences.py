"""Small data sets of sequences, and the forms of files that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Data:
    """Sequences with labels and perhaps splits; features are called a, b, c ..."""

    sequences: list[NDArray[np.float64]]
    labels: list[str]
    splits: list[str] | None = None

    def table(self) -> pd.DataFrame:
        """Return the long table."""
        frames = []
        for number, (sequence, label) in enumerate(zip(self.sequences, self.labels, strict=True)):
            frame = pd.DataFrame(sequence, columns=[chr(97 + k) for k in range(sequence.shape[1])])
            frame.insert(0, "id", f"s{number}")
            frame.insert(1, "time", np.arange(len(sequence)))
            frame["label"] = label
            if self.splits is not None:
                frame["split"] = self.splits[number]
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def write(self, path: Path, order: Sequence[int] | None = None) -> Path:
        """Write a file in the form that its name says; for .ts the pair, of which the path of _TRAIN is returned."""
        if path.suffix in (".csv", ".tsv", ".parquet"):
            table = self.table()
            if order is not None:
                rank = {f"s{number}": place for place, number in enumerate(order)}
                # The rows of a sequence fall apart, and come in falling order of time.
                table = table.sort_values(
                    ["time", "id"], ascending=[False, True], key=lambda c: c.map(rank).fillna(c)
                )
            if path.suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        elif path.suffix == ".npz":
            chosen = list(range(len(self.labels))) if order is None else list(order)
            arrays = {
                "values": np.concatenate([self.sequences[k] for k in chosen]),
                "lengths": np.array([len(self.sequences[k]) for k in chosen]),
                "labels": np.array([self.labels[k] for k in chosen]),
            }
            if self.splits is not None:
                arrays["split"] = np.array([self.splits[k] for k in chosen])
            np.savez(path, **arrays)
        else:
            assert self.splits is not None
            for split in ("train", "test"):
                chosen = [k for k, name in enumerate(self.splits) if name == split]
                write_ts(
                    path.with_name(f"{path.stem}_{split.upper()}.ts"),
                    [self.sequences[k] for k in chosen],
                    [self.labels[k] for k in chosen],
                    sorted(set(self.labels)),
                )
            return path.with_name(f"{path.stem}_TRAIN.ts")
        return path


def write_ts(path: Path, sequences: list[NDArray[np.float64]], labels: list[str], classes: list[str]) -> None:
    """Write a .ts file; a missing value is a question mark."""
    lines = ["# written by a test", "@problemName test", "@timeStamps false", f"@classLabel true {' '.join(classes)}"]
    lines.append("@data")
    for sequence, label in zip(sequences, labels, strict=True):
        columns = [",".join("?" if np.isnan(v) else repr(float(v)) for v in column) for column in sequence.T]
        lines.append(":".join([*columns, label]))
    path.write_text("\n".join(lines) + "\n")


def make(
    count: int = 60, classes: int = 3, features: int = 2, longest: int = 12, seed: int = 0, split: bool = False
) -> Data:
    """Return sequences whose class shows in their mean."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % classes
    sequences = [rng.normal(size=(rng.integers(1, longest + 1), features)) + code for code in codes]
    splits = ["test" if number % 4 == 3 else "train" for number in range(count)] if split else None
    return Data(sequences, [f"class{code + 8}" for code in codes], splits)
