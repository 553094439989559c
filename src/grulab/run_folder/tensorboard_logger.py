"""The TensorBoard logger of a run: one curve per tag, charts that compare curves, and hyper-parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from grulab.run_folder import hparams, paths

# Beside val/accuracy, which TensorBoard sorts before them.
CHANCE = "val/chance"
CEILING = "val/ceiling"
BASELINES = "val/baselines"

# Train and validation in one chart, with chance and ceiling (the Custom Scalars tab).
_LAYOUT = {
    "learning": {
        "accuracy": [
            "Multiline",
            ["^train/accuracy$", "^val/accuracy$", f"^{CHANCE}$", f"^{CEILING}$", f"^{BASELINES}/"],
        ],
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
    }
}


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger in one fixed folder, with hyper-parameters that TensorBoard can read.

    Args:
        run_dir: the run's folder; the event files go into ``tensorboard/`` in it.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, name=paths.TENSORBOARD, version="", default_hp_metric=False)
        self._folder = run_dir / paths.TENSORBOARD

    @property
    def log_dir(self) -> str:
        """The folder of the event files; Lightning would expand ``$NAME`` and ``~`` in it."""
        return str(self._folder)

    def begin(self, config: Mapping[str, Any], name: str) -> None:
        """Write the records of the whole run: the layout of the charts and the hyper-parameters."""
        self.experiment.add_custom_scalars(_LAYOUT)
        self.experiment.file_writer.add_summary(hparams.session_start(config, name))

    def end(self, status: str) -> None:
        """Write the final status of the run ("done", "failed" or "interrupted") and close the file."""
        self.experiment.file_writer.add_summary(hparams.session_end(status))
        self.experiment.close()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning calls this at every start of a fit; :meth:`begin` writes hyper-parameters once."""

    def save(self) -> None:
        """Flush the file, without Lightning's hparams.yaml: the run has .hydra/config.yaml."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Flush the file. Lightning would close it after each fit and test; :meth:`end` closes it."""
        self.experiment.flush()
