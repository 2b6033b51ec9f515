"""NIR graphs for the tests, built without nir's own type check."""

import itertools

import nir
import numpy as np


def a(*values):
    """A float32 array of the values."""
    return np.array(values, np.float32)


def full(shape, value):
    return np.full(shape, value, np.float32)


def lif(shape=(), tau=2e-4, r=1.0, v_leak=0.0, theta=1.0, v_reset=0.0):
    """Fields as numbers or arrays; with dt 1e-4 the default tau means a decay of 0.5."""
    fields = (tau, r, v_leak, theta, v_reset)
    tau, r, v_leak, theta, v_reset = (np.broadcast_to(np.asarray(f, np.float32), shape).copy() for f in fields)
    return bare(nir.LIF, tau=tau, r=r, v_leak=v_leak, v_threshold=theta, v_reset=v_reset)


def iff(shape=(), r=1e4, theta=1.0, v_reset=0.0):
    return bare(nir.IF, r=full(shape, r), v_threshold=full(shape, theta), v_reset=full(shape, v_reset))


def bare(kind, **fields):
    """A node with these fields and no check of its own."""
    node = object.__new__(kind)
    node.input_type, node.output_type, node.metadata = {"input": None}, {"output": None}, {}
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def graph(nodes, edges, metadata=None):
    found = nir.NIRGraph(nodes, edges, type_check=False)
    found.metadata = metadata or {}
    return found


def chain(shape, *nodes, extra=(), **named):
    """input -> n0 -> n1 ... -> output, and the ``extra`` edges."""
    members = {"input": nir.Input(np.array(shape)), **{f"n{i}": node for i, node in enumerate(nodes)}}
    names = [*members, "output"]
    members["output"] = nir.Output(np.array([1]))
    return graph({**members, **named}, [*itertools.pairwise(names), *extra])


def steps(*rows):
    """Input for one sample, ``[T, 1, n]``."""
    return np.array(rows, np.float32)[:, None]
