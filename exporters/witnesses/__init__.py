"""Independent simulators that run a network's integers, each in an environment of its own."""
