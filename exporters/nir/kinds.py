"""The kinds of nodes that NIR has, as far as we read them: a new one is one row here and one case of `lower`."""

from __future__ import annotations

import nir

NEURONS = (nir.I, nir.IF, nir.LI, nir.LIF, nir.CubaLI, nir.CubaLIF, nir.Threshold)
ELEMENTWISE = (*NEURONS, nir.Scale, nir.Delay, nir.Input, nir.Output)
"""Kinds that keep their input's shape."""
LAYERS = (nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d, nir.Flatten)
KINDS: dict[str, type[nir.NIRNode]] = {kind.__name__: kind for kind in (*ELEMENTWISE, *LAYERS)}
"""All of them, by their type in a file."""
