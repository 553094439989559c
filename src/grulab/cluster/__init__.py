"""Sweeps on many machines: the same slices as tasks of SLURM or Ray, watched from their folders."""
