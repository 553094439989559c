"""How many sequences a second, and how many at all."""
