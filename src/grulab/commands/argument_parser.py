"""The argument parser of the subcommands that are not Hydra applications."""

import argparse
from typing import NoReturn

from grulab.config_error import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of printing the error and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError with the message and a pointer to ``--help``."""
        # With intermixed arguments, argparse counts the overrides as required too.
        message = message.replace(", KEY=VALUE", "")
        raise ConfigError(f"{message}; {self.prog} --help shows how")
