"""The exception for a user's mistake."""


class ConfigError(ValueError):
    """A user's mistake: each line names the key, the value and the remedy. The command line exits with 2."""
