"""What a worker does in a comparison of optimizers."""
