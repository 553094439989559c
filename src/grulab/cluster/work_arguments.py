"""What a command that submits a sweep has to say to ``grulab work`` once more."""

from collections.abc import Collection
from pathlib import Path

from grulab.config.overrides import is_about_hydra, key_of
from grulab.sweep import manifest
from grulab.sweep.slurm_settings import SUBMISSION_KEYS
from grulab.sweep.stored_arguments import CONFIG_DIR, foreign


def work_arguments(sweep_dir: Path, given_up: Collection[int]) -> list[str]:
    """Return the arguments of this command that ``grulab work`` needs, and takes from no file.

    sweep.json holds those of this very command, which has written it; but whoever reads it there cannot know that.

    Args:
        sweep_dir: the sweep's folder.
        given_up: numbers of the jobs that are not to be run.
    """
    known = manifest.read(sweep_dir, ())
    assert known is not None
    needed = [word for word in known.arguments if is_about_hydra(word) or word.startswith(CONFIG_DIR)]
    words = [word for word in foreign(needed) if key_of(word).removeprefix("hydra.launcher.") not in SUBMISSION_KEYS]
    return [*words, f"--skip={','.join(map(str, sorted(given_up)))}"] if given_up else words
