"""The implementation of the command line's subcommands."""
