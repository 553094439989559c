"""The GRU, and the LightningModule that trains it."""
