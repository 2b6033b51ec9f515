"""Training: the loop, its checkpoints and metrics, and evaluation."""
