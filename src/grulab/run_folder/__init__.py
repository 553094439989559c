"""The files in a run's folder: checkpoints, curves, summary.json, and the lock."""
