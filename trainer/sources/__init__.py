"""Where batches come from. The loop asks a source for the next batch and can't tell which it is."""
