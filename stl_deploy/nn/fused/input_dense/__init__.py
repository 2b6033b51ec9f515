"""Compute the dense layer behind a network's input from the input's events.

Contract: `dense.suits` returns whether a layer can be computed this way and its input is worth a look;
`dense.product` then counts the events and returns the layer's output: from the events alone if they are few, else with
torch. The order of summation does not depend on the number of threads. The kernels are in `events`.
"""
