"""Where the two data sets of the study lie: in an installed aeon, or in a folder that is named."""

import importlib.util
from pathlib import Path

NAMES = {"JapaneseVowels": "Japanese Vowels", "BasicMotions": "Basic Motions"}
NO_AEON = "aeon is not installed; in an environment of its own: pip install aeon"


def training_files(folder: Path | None) -> dict[str, Path]:
    """Return the path of ``NAME_TRAIN.ts`` of each data set; ``NAME_TEST.ts`` lies beside it.

    Args:
        folder: that holds the files, or a folder NAME with them; None takes those that are part of aeon.

    Raises:
        SystemExit: if a file is missing, with what to do about it.
    """
    if folder is None:
        # Importing aeon takes seconds, and its files are all that is needed.
        found = importlib.util.find_spec("aeon")
        if found is None or found.origin is None:
            raise SystemExit(f"{NO_AEON}, or name a folder that holds the .ts files: --data FOLDER")
        folder = Path(found.origin).parent / "datasets" / "data"
    files = {}
    for name in NAMES:
        train, test = ([f"{name}_{split}.ts", f"{name}/{name}_{split}.ts"] for split in ("TRAIN", "TEST"))
        pairs = [(folder / one, folder / other) for one, other in zip(train, test, strict=True)]
        complete = [one for one, other in pairs if one.is_file() and other.is_file()]
        if not complete:
            raise SystemExit(f"{folder}: holds no {train[0]} with its {test[0]}; the package aeon has both")
        files[name] = complete[0]
    return files
