"""Speed of grulab's kernels, runs and sweeps against the alternatives."""
