"""Training, testing and resuming one run."""
