"""Convert errors of Hydra and OmegaConf to one line that names the key, the value and the remedy."""

import re
from collections.abc import Sequence

from hydra.errors import MissingConfigException
from yaml import YAMLError

from grulab.config.conf_dir import chosen_plugins, chosen_task, config_dir, groups, plugin_keys
from grulab.config.overrides import is_about_hydra, key_of
from grulab.config.suggestions import unknown_key, valid_keys
from grulab.system.printable import printable


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Return every key and group that an override can name, for the task that these overrides choose."""
    plugins = [key for plugin in chosen_plugins(overrides) for key in plugin_keys().get(plugin, [])]
    return [*valid_keys(chosen_task(overrides)), *groups(), *plugins]


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return a one-line message for an error.

    Args:
        error: an exception of Hydra, OmegaConf or the YAML reader.
        overrides: the user's overrides.
    """
    text = printable(" ".join(str(error).split()))
    if isinstance(error, RecursionError):
        chosen = [line for line in overrides if key_of(line) in groups()] or ["its defaults list"]
        return f"{' '.join(chosen)}: includes itself, or is nested too deeply; its defaults list must end"
    if isinstance(error, KeyError) and any(key_of(line) == "hydra.job.env_copy" for line in overrides):
        return f"hydra.job.env_copy: the variable {error.args[0]} is not set"

    def written(key: str) -> str:
        """Return the override of a key as the user wrote it."""
        return next((line for line in overrides if key_of(line) == key), f"{key}=...")

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group = next((key for key in groups() if error.missing_cfg_file.startswith(f"{key}/")), "")
        group = group or error.missing_cfg_file.rpartition("/")[0]
        choice = error.missing_cfg_file.removeprefix(f"{group}/")
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
    wrong = [line for line in overrides if key_of(line) in groups()]
    if text.startswith("Config group override must be") and wrong:
        choices = [", ".join(groups()[key_of(line)]) for line in wrong]
        return "; ".join(f"{line}: choose from {choice}" for line, choice in zip(wrong, choices, strict=True))
    if "LexerNoViableAltException" in text or "OverrideParseException" in type(error).__name__:
        override = getattr(error, "override", None) or " ".join(overrides) or "''"
        return f"{override}: cannot be read as key=value; quote what the shell or Hydra would take apart"
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    # OmegaConf appends its internal types, which do not help the user.
    text = re.sub(r" (reference_type|object_type)=\S+", "", f"{text} {cause}").strip()
    if any(line in text for line in overrides if "=" in line):
        return text
    # A mistake in a file is named with its file and line, and --config-dir is no override of the user.
    own = (
        [] if isinstance(error, YAMLError) else [line for line in overrides if "hydra.searchpath=['file:" not in line]
    )
    suspects = " ".join(filter(is_about_hydra, own)) or " ".join(own)
    if not suspects:
        return text or type(error).__name__
    return f"{suspects}: Hydra cannot take it ({text or type(error).__name__})"
