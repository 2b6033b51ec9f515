"""Prove a captured step: replayed, layer by layer, and end to end, on x and on other input."""
