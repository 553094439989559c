"""A faster GRU for the CPU, where it was built."""
