"""Chips and tools that nothing is written for: what they could not hold of a network, and what to train instead."""
