"""``grulab train``: one run; with ``-m``, a sweep."""

from collections.abc import Sequence
from pathlib import Path

from grulab.commands.hydra_app import (
    call_hydra,
    claimed_folder,
    parse_arguments,
    refuse_flags,
    with_config_dir,
    with_folder,
)
from grulab.config.compose import compose_run
from grulab.config.overrides import key_of
from grulab.config_error import ConfigError
from grulab.sweep.check_machine import check_machine

PLAN, ONLY_WRITE = "--plan", "--only-write"
_OF_A_SWEEP = ("hydra.launcher", "hydra/launcher", "hydra.sweep", "hydra/sweep")


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab train ARGUMENTS``.

    Raises:
        ConfigError: if the command line or the configuration is invalid; nothing has been created then.
        SweepFailedError: at the end of a sweep, if some of its jobs failed.
        Interrupted: if a signal stopped the run; its progress is saved.
        Exception: the error that stopped a run.
    """
    words = [word for word in arguments if word not in (PLAN, ONLY_WRITE)]
    plan, only_write = PLAN in arguments, ONLY_WRITE in arguments
    args = parse_arguments(words)
    refuse_flags(args)
    if plan and not args.multirun:
        raise ConfigError(f"{PLAN}: shows the jobs of a sweep, which takes -m; --cfg job shows a run")
    if only_write and not args.multirun:
        raise ConfigError(f"{ONLY_WRITE}: writes the jobs of a sweep, which takes -m")
    if only_write and plan:
        raise ConfigError(f"{ONLY_WRITE}: does not go with {PLAN}, which writes nothing; leave out one of them")
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        call_hydra(args, words)
        return
    if args.multirun:
        from grulab.commands.sweep import run_sweep

        run_sweep(args, words, plan, only_write)
        return
    config, hydra_config = compose_run(with_config_dir(args), args.config_name or "config")
    check_machine(config)
    for line in args.overrides:
        if key_of(line).startswith(_OF_A_SWEEP):
            print(f"note: {line} has no effect: without -m this is one run")
    if swept := hydra_config.sweeper.get("params"):
        print(
            f"note: this experiment sweeps {', '.join(swept)}; that takes grulab train -m. "
            "Without it, one run is made"
        )
    key = "hydra.run.dir"
    with claimed_folder(key, Path(hydra_config.run_dir), args.overrides) as folder:
        call_hydra(args, with_folder(words, key, folder))
