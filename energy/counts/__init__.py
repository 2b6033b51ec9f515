"""Exact counts: synops, MACs, neuron updates, messages."""
