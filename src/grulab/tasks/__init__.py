"""What can be learned: one task a file, with its configuration, its generator, its ceiling and its chance level."""
