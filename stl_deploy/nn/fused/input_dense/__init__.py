"""The dense layer behind a network's input, computed from the input's events.

Contract: `dense.suits` says whether a layer can be computed so and whether it is worth looking at its input;
`dense.product` then counts the events, and gives what the layer does: from the events alone where they are few, as
torch does elsewhere. Sums are taken in an order that no number of threads changes. The kernels are in `events`.
"""
