"""The configuration of a run: its schema, its composition, and the messages for invalid input."""
