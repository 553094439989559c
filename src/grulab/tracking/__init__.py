"""What a run leaves behind: checkpoints, curves, metrics.csv, summary.json."""
