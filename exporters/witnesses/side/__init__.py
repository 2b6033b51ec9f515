"""Scripts that run inside the witnesses' environments, which have nothing of ours installed."""
