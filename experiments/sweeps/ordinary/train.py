"""The reference script: ordinary use of Hydra and Lightning, without regard to speed or failures.

It has a dataset of single sequences and a collate function, a metric object that is updated and logged in each step,
and a default Trainer. Task, model, optimizer and number of epochs are the same as in grulab's default sweep.

    python -m experiments.sweeps.ordinary.train -m hidden_size=8,16,32 num_layers=1,2 \\
        bidirectional=false,true seed=0,1,2
"""

from pathlib import Path
from typing import Any, cast

import hydra
import lightning as L
from experiments.sweeps.ordinary.model import GRUModule, make_loaders
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from grulab.tasks.base import DataConfig
from grulab.tasks.files import FilesConfig
from grulab.tasks.registry import build_task
from grulab.tasks.sinusoids import SinusoidsConfig

_FILES = Path("conf") / "data" / "files.yaml"


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config: DictConfig) -> float:
    """Train, validate and test one model."""
    L.seed_everything(config.seed, verbose=False)
    data: DataConfig = SinusoidsConfig(**cast(dict[str, Any], OmegaConf.to_container(config.data)))
    if config.file:
        values = cast(DictConfig, OmegaConf.load(_FILES))
        data = FilesConfig(**cast(dict[str, Any], OmegaConf.to_container(values)) | {"path": config.file}).located()
    loaders = make_loaders(data)
    task = build_task(data)
    sizes = task.num_features, len(task.class_names)
    module = GRUModule(config.hidden_size, config.num_layers, config.bidirectional, config.lr, *sizes)
    trainer = L.Trainer(max_epochs=config.max_epochs, default_root_dir=Path(HydraConfig.get().runtime.output_dir))
    trainer.fit(module, loaders["train"], loaders["val"])
    trainer.test(module, loaders["test"], ckpt_path="best")
    return float(trainer.callback_metrics["test/accuracy"])


if __name__ == "__main__":
    main()
