"""Neurons, layers and networks in torch."""
