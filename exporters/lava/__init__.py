"""Real Lava, in its own Python 3.10: the side environment, and runs of netx files in a separate process."""
