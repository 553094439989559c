"""What this machine can do: its parts, and whether its devices compute what they should."""
