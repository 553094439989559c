"""How fast it is, beside what a person could use instead."""
