"""The path of the folder conf/, and the choices in it."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from grulab.config.overrides import split_override

_PACKAGE = Path(__file__).parents[1]


def config_dir() -> Path:
    """Return the folder of YAML files: conf/ of the checkout, or its copy in an installed wheel."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "conf"


def groups() -> dict[str, list[str]]:
    """Return the names of the groups in conf/, and the choices of each."""
    folders = [path for path in sorted(config_dir().iterdir()) if path.is_dir() and path.name != "hydra"]
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def chosen_task(overrides: Sequence[str]) -> str:
    """Return the task that the overrides choose with ``data=``, or the default task."""
    choice = next((value for key, value in map(split_override, overrides) if key == "data"), None)
    if choice is None:
        defaults = yaml.safe_load((config_dir() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
        choice = next(entry["data"] for entry in defaults if "data" in entry)
    path = config_dir() / "data" / f"{choice}.yaml"
    # A user's file outside conf/ probably has the name of its task.
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["task"] if path.is_file() else choice)


def plugin_keys() -> dict[str, list[str]]:
    """Return the keys of each sweeper and launcher in conf/: ``hydra/sweeper=grid`` -> [``hydra.sweeper.tune``]."""
    found = {}
    for kind in ("sweeper", "launcher"):
        for path in sorted((config_dir() / "hydra" / kind).glob("*.yaml")):
            names = yaml.safe_load(path.read_text(encoding="utf-8"))
            found[f"hydra/{kind}={path.stem}"] = [f"hydra.{kind}.{name}" for name in names if name != "_target_"]
    return found


def chosen_plugins(overrides: Sequence[str]) -> list[str]:
    """Return the sweeper and the launcher that the overrides choose, or the default, as ``hydra/sweeper=grid``."""
    chosen = {"hydra/sweeper": "grid", "hydra/launcher": "local"} | {
        key: value for key, value in map(split_override, overrides) if key in ("hydra/sweeper", "hydra/launcher")
    }
    return [f"{key}={value}" for key, value in chosen.items()]
