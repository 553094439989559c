"""From sequences to padded batches."""
