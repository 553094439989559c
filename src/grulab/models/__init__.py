"""The GRU classifier as a plain torch module."""
