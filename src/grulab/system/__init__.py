"""The operating system and the process: signals, child processes, cores and imports."""
