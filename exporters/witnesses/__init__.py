"""Independent simulators that a network's integers are run on, each in an environment of its own."""
