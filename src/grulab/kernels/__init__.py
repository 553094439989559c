"""A faster GRU for the CPU, compiled from C; optional."""
