"""Training with Loihi's integers in the loop (quantisation-aware training)."""
