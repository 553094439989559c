"""Sweeps: compose the jobs, run them in parallel, and resume the sweep after a failure or an interruption."""
