"""The hunt: damage of every input format, ends of every kind, bad surroundings; ``make hunt``."""
