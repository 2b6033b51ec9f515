"""Folding: a trained network becomes a canonical NIR graph, with the proof that it still spikes the same."""
