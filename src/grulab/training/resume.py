"""``grulab resume``: go on with a run from its folder alone, to the bit."""

import logging.config
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from grulab.config.compose import checked, override_values
from grulab.config.hydra_errors import Parser, config_dir
from grulab.config.same_run import MAY_CHANGE, refuse_another_run
from grulab.config.schema import Config, ConfigError, parse, parse_stored
from grulab.run_folder.paths import shown
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.system.processes import importing


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab resume ARGUMENTS``.

    Raises:
        ConfigError: for a user's mistake.
    """
    parser = Parser(
        prog="grulab resume",
        description="Go on with a run or a sweep where it stopped, in the same folder and on the same curves.",
        epilog=f"Overrides may change {', '.join(sorted(MAY_CHANGE))}: what else changes makes another run.",
    )
    parser.add_argument("run_dir", metavar="DIR", help="the folder of a run or a sweep")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="such as trainer.max_epochs=50")
    parser.add_argument("--plan", action="store_true", help="show where a sweep's jobs stand, and start nothing")
    options = parser.parse_intermixed_args(arguments)
    run_dir = Path(options.run_dir)
    if (run_dir / manifest.FILE_NAME).exists():
        from grulab.commands.train import continue_sweep

        continue_sweep(run_dir, options.overrides, options.plan)
        return
    if options.plan:
        raise ConfigError(f"--plan: shows the jobs of a sweep, and {run_dir} is no sweep's folder")
    config = resumed_config(run_dir, options.overrides)
    try:
        _log_to(run_dir)
    except (OSError, ValueError) as error:
        # A file handler's own error comes wrapped.
        raise ConfigError(f"{run_dir}: run.log cannot be written ({error.__cause__ or error})") from None
    with importing():
        from grulab.training.run import go_on

    go_on(config, run_dir)


def resume(run_dir: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with a run where it stopped.

    Args:
        run_dir: the run's folder.
        overrides: changes to its configuration; see ``MAY_CHANGE``.

    Returns:
        The content of summary.json. Of a run that is finished and not extended, as it is.

    Raises:
        ConfigError: if there is no run, it is another one, or somebody else is at it.
        DamagedCheckpointError: if no checkpoint is whole.
        UnsafeCheckpointError: if a checkpoint asks for code.
        NonFiniteLossError, DiskFullError, Interrupted: as :func:`grulab.train`.
    """
    from grulab.training.run import go_on

    return go_on(resumed_config(Path(run_dir), overrides), Path(run_dir))


def resumed_config(run_dir: Path, overrides: Sequence[str]) -> Config:
    """Return the configuration that the run has and goes on with. No torch is imported.

    Raises:
        ConfigError: if the folder is no run's, or an override would make it another run.
    """
    before = stored_config(run_dir)
    values = override_values(before.to_dict(), overrides)
    after = parse(values)
    refuse_another_run(before, after)
    return after


def stored_config(run_dir: Path) -> Config:
    """Return the configuration that a run's folder tells of.

    Raises:
        ConfigError: if there is no such folder, or it is of another kind.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: no such folder")
    if (run_dir / manifest.FILE_NAME).exists():
        raise ConfigError(
            f"{run_dir}: is a sweep's folder; go on with grulab resume {shown(run_dir)}, or name a job's"
        )
    composed = run_dir / ".hydra" / "config.yaml"
    summary = read_summary(run_dir)
    if summary is not None and isinstance(summary.get("config"), dict):
        return parse_stored(summary["config"])
    if composed.is_file():
        # The run was stopped before it had written anything of its own, or its summary was spoilt since.
        values = OmegaConf.load(composed)
        assert isinstance(values, DictConfig)
        return checked(values)
    if (run_dir / "checkpoints").is_dir():
        from grulab.run_folder.checkpoint_file import KEY
        from grulab.training.callbacks import checkpointing

        if found := checkpointing.newest_good(run_dir / checkpointing.FOLDER):
            return parse_stored(found[1][KEY]["config"])
    raise ConfigError(f"{run_dir}: is not a run's folder: no summary.json, .hydra or checkpoints tells what it is")


def _log_to(run_dir: Path) -> None:
    """Log as ``grulab train`` does, to the same run.log."""
    settings = OmegaConf.load(config_dir() / "hydra" / "job_logging" / "grulab.yaml")
    root = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(run_dir)}}, "settings": settings})
    logging.config.dictConfig(cast(dict[str, Any], OmegaConf.to_container(root.settings, resolve=True)))
