"""The parser of the arguments of the verbs that are no Hydra applications."""

import argparse
from typing import NoReturn

from grulab.config_error import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that raises its mistakes instead of printing them."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError with the message and where to find help."""
        raise ConfigError(f"{message}; {self.prog} --help shows how")
