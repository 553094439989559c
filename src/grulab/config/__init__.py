"""A run's configuration: its schema, how it is composed, and the words for a user's mistakes."""
