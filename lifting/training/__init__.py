"""Training: losses, the loop and checkpoints of a run."""
