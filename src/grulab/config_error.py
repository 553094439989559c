"""The exception for invalid input."""


class ConfigError(ValueError):
    """Invalid input: each line of the message names key, value and remedy. The command line exits with 2."""
