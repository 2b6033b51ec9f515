"""Folding NIR graphs that came without a torch network."""
