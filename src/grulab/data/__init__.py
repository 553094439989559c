"""Padded batches: datasets, samplers and DataLoaders."""
