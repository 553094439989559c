"""What Hydra and OmegaConf say of a user's overrides, in one line that names key, value and remedy."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.errors import MissingConfigException

from grulab.config.schema import TASK_CONFIGS, ConfigError, unknown_key, valid_keys

_PACKAGE = Path(__file__).parents[1]


def config_dir() -> Path:
    """Return the folder of YAML files: conf/ of the checkout, or the copy that a wheel carries."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "conf"


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are ours to print."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError with the message and where to find help."""
        raise ConfigError(f"{message}; {self.prog} --help shows how")


def groups() -> dict[str, list[str]]:
    """Return the names of the groups in conf/, and the choices of each."""
    folders = [path for path in sorted(config_dir().iterdir()) if path.is_dir() and path.name != "hydra"]
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Return every key and group that an override can name, for the data that these overrides choose."""
    chosen = next((line.partition("=")[2] for line in overrides if line.startswith("data=")), None)
    task = chosen if chosen in TASK_CONFIGS else "sinusoids"
    return [*valid_keys({"data": {"task": task}}), *groups()]


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return the line for an error.

    Args:
        error: Hydra's, OmegaConf's or the YAML reader's.
        overrides: what the user wrote.
    """
    text = " ".join(str(error).split())

    def written(key: str) -> str:
        """Return the override of a key as the user wrote it."""
        return next((line for line in overrides if re.split("[=@]", line.lstrip("+~"))[0] == key), f"{key}=...")

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if error.options:
            return f"{group}={choice}: no such choice; choose from {', '.join(sorted(error.options))}"
    if found := re.search(r"Cannot find primary config '([^']+)'", text):
        return f"--config-name {found[1]}: no such file in {config_dir()}"
    if found := re.search(r"Could not override '([^'@]+)", text):
        return unknown_key(written(found[1]), known_keys(overrides))
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{written(found[1])}: is there already; leave out the + to change it"
    if found := re.search(r"(\S+) appears more than once in the final defaults list", text):
        return f"{written(found[1])}: is there already; leave out the + to change it"
    if text.startswith("Config group override must be"):
        wrong = [line for line in overrides if line.partition("=")[0] in groups()]
        choices = [", ".join(groups()[line.partition("=")[0]]) for line in wrong]
        return "; ".join(f"{line}: choose from {choice}" for line, choice in zip(wrong, choices, strict=True))
    if "LexerNoViableAltException" in text or "OverrideParseException" in type(error).__name__:
        override = getattr(error, "override", None) or " ".join(overrides)
        return f"{override}: cannot be read as key=value; quote what the shell or Hydra would take apart"
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    # What OmegaConf adds about its own types helps nobody here.
    return re.sub(r" (reference_type|object_type)=\S+", "", f"{text} {cause}").strip()
