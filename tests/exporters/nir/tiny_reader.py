"""A reader of NIR files in numpy, independent of stl-deploy: chains of Linear, Affine and LIF in Euler steps.

Usage: tiny_reader.py COMPARE GRAPH.nir IN.npz OUT.npz, where COMPARE is gt or ge. Exit status 77 for other graphs.
"""

import sys

import nir
import numpy as np

DT = np.float32(1e-4)


def ordered(graph):
    """The nodes of a chain, from input to output, without them."""
    follows = dict(graph.edges)
    if len(follows) != len(graph.edges):
        raise SystemExit(77)
    name, chain = follows["input"], []
    while name != "output":
        if len(chain) > len(graph.nodes):
            raise SystemExit(77)
        chain.append(graph.nodes[name])
        name = follows[name]
    return chain


def layer(node, x, compare):
    """One node over all steps, `[T, B, n]`."""
    if isinstance(node, nir.Affine):
        return x @ np.float32(node.weight).T + np.float32(node.bias)
    if isinstance(node, nir.Linear):
        return x @ np.float32(node.weight).T
    if not isinstance(node, nir.LIF):
        raise SystemExit(77)
    rate = DT / np.float32(node.tau)
    v, spikes = np.zeros_like(x[0]), []
    for step in x:
        v = v + rate * (np.float32(node.v_leak) - v + np.float32(node.r) * step)
        fired = compare(v, np.float32(node.v_threshold))
        v = np.where(fired, np.float32(node.v_reset), v)
        spikes.append(fired)
    return np.float32(spikes)


def main(compare, graph, given, output):
    """Run the graph."""
    y = np.load(given)["x"]
    try:
        network = nir.read(graph, type_check=False)
    except Exception as error:
        print(f"nir: {error}", file=sys.stderr)
        raise SystemExit(77) from None
    for node in ordered(network):
        y = layer(node, y, {"gt": np.greater, "ge": np.greater_equal}[compare])
    np.savez(output, y=y)


if __name__ == "__main__":
    main(*sys.argv[1:])
