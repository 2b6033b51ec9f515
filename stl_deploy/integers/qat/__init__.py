"""Quantisation-aware training: train with Loihi's integers in the loop."""
