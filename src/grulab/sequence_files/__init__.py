"""A person's own sequences: files are read, checked, split, scaled and cached here. Nothing here imports torch."""
