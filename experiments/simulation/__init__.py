"""How often the claims of races and leaderboards are false."""
