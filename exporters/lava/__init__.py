"""Real Lava, in a Python 3.10 of its own: the side environment, and runs of netx files in a process apart."""
