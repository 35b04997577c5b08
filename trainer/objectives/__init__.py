"""What is minimised: each objective's heads, what it needs of a batch, and its loss over all ranks."""
