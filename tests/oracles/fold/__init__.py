"""Folding: a trained network becomes a canonical NIR graph on a grid where every backend computes the same bits.

    folded = network.fold(trained, coding="analog", fraction_bits=4)
    write_nir(folded.graph, Path("net.nir"))

The passes, each a module: `stages` takes the network apart and folds each norm (`norm`); `thresholds` puts θ into
the weights, if asked; `rounding` and `grid` choose the exact grids; `assemble` makes a torch network and the
graph of the same numbers; `check` runs both and raises where a spike differs.

Two other folds begin where this one does not. `layer_graph` turns what was captured of a module of anyone's into a
graph: axes, delays and resets of any kind, but nothing is rounded, for capture proves against the module's own floats.
`graph` works on NIR that is there already, one pass after the other, each rounding to float32 what it writes. Here all
passes work in float64 and round once, and what is rounded goes back into a torch network: another order of rounding
would be other bits. What they do alike they share: `norm`, `grid`, `check_graph`'s bounds.
"""
