"""The tasks, one in each file, with configuration, generator, ceiling (best accuracy) and chance level."""
