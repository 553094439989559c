"""MiniRocket (Dempster, Schmidt and Webb 2021, https://doi.org/10.1145/3447548.3467231) on the same files.

    python -m experiments.real_data.minirocket FILE_TRAIN.ts [...]

prints a line of JSON: for each file and seed, whether each test sequence is classified correctly, in the order of
the file. Shorter sequences are padded with zeros to the longest, because MiniRocket needs equal lengths. The
classifier is that of aeon with its own settings; it learns from all training sequences, as it needs none to validate.
"""

import json
import sys
from pathlib import Path

import numpy as np

SEEDS = range(3)


def main(files: list[str]) -> None:
    from aeon.classification.convolution_based import MiniRocketClassifier
    from aeon.datasets import load_from_ts_file
    from aeon.transformations.collection.unequal_length import Padder

    found: dict[str, list[list[bool]]] = {}
    for file in files:
        train, classes = load_from_ts_file(file)
        test, truth = load_from_ts_file(str(Path(file).with_name(Path(file).name.replace("_TRAIN", "_TEST"))))
        longest = max(sequence.shape[1] for sequence in [*train, *test])
        pad = Padder(padded_length=longest)
        train, test = pad.fit_transform(train), pad.fit_transform(test)
        found[file] = []
        for seed in SEEDS:
            classifier = MiniRocketClassifier(random_state=seed).fit(train, classes)
            found[file].append(np.equal(classifier.predict(test), truth).tolist())
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
