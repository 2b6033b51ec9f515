"""The integer model with nengo-loihi's registers: a step's input wraps at 21 bits and a sign, u + bias at 23.

Lava and our model wrap u alone, at 24 bits. Where no register is passed, both are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.chip_check import WIDE
from stl_deploy.exporters.netx.convert import run_file, to_graph
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.target import Loihi
from stl_deploy.integers.graph import IntegerGraph, IntegerInput, IntegerLIF
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, Ints
from stl_deploy.integers.simulate import IntegerRun, as_integers, evaluate

ARRIVING, U = 21, 23
"""Bits of the registers, without their signs (nengo-loihi 1.1.0: ``Q_BITS``, ``U_BITS``)."""


class Wrapped(Loihi):
    """Integer model with nengo-loihi's registers."""

    name = "loihi with registers of 21 bits"

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file on integers ``x``."""
        return simulate_wrapped(file, x)


def simulate_wrapped(net: NetxFile, x: NDArray[Any]) -> IntegerRun:
    """Run as `stl_deploy.exporters.netx.convert.run_file`, with these registers; every layer is recorded."""
    values = _values(to_graph(net), as_integers(x, net.input_shape))
    spikes = {key: values[key] for key, _ in net.spiking}
    return IntegerRun(values["output"], spikes)


def _values(graph: IntegerGraph, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the output of every node."""
    values: dict[str, NDArray[Any]] = {graph.input.name: x}
    for node in graph.nodes:
        if isinstance(node, IntegerInput):
            continue
        arriving = [values[source.node] for source in node.operands]
        if isinstance(node, IntegerLIF):
            values[node.name] = _spikes(node, arriving[0])
        else:
            values[node.name] = evaluate(node, arriving, {}, graph.accumulator)
    return values


def parting(net: NetxFile, x: NDArray[Any]) -> str | None:
    """Return the spikes that these registers change: count, first spike, and the overflowing register; None if none."""
    graph, ours = to_graph(net), run_file(net, x, record=True).spikes
    theirs = _values(graph, as_integers(x, net.input_shape))
    differ = {key: theirs[key] != spikes for key, spikes in ours.items()}
    first = next((key for key, where in differ.items() if where.any()), None)
    if first is None:
        return None
    step, sample, *neuron = np.argwhere(differ[first])[0].tolist()
    arriving = theirs[graph.by_name[first].operands[0].node]
    sums = arriving[(slice(None, step + 1), sample, *neuron)].astype(np.int64)
    past = np.flatnonzero(wrap(sums << STATE_SHIFT, ARRIVING) != sums << STATE_SHIFT)
    why = f"its u and bias come to more than 2^{U}, where both wrap, and Lava u alone"
    if len(past):
        at = int(past[0])
        why = (
            f"its weighted sum of {sums[at]:,} in step {at} is past 2^{ARRIVING}/{2**STATE_SHIFT} = {WIDE:,}, where "
            "nengo-loihi's accumulator wraps and Lava's does not"
        )
    count, of = sum(int(where.sum()) for where in differ.values()), sum(where.size for where in differ.values())
    return (
        f"nengo-loihi's registers change {count:,} of {of:,} spikes; the first: "
        f"'{dict(net.spiking)[first].node or first}', step {step}, sample {sample}, neuron {neuron}: {why}"
    )


def _spikes(node: IntegerLIF, arriving: NDArray[Any]) -> NDArray[np.uint8]:
    neuron = node.neuron
    added = 0 if node.bias is None else node.bias.astype(np.int64) << STATE_SHIFT
    threshold = neuron.threshold.astype(np.int64) << STATE_SHIFT
    u = v = np.zeros(arriving.shape[1:], np.int64)
    spikes = np.empty(arriving.shape, np.uint8)
    for now, fired in zip(arriving, spikes, strict=True):
        u = wrap(_leak(u, neuron.i_decay) + wrap(now.astype(np.int64) << STATE_SHIFT, ARRIVING), U)
        v = np.clip(_leak(v, neuron.v_decay) + wrap(u + added, U), 1 - STATE_TOP, STATE_TOP - 1)
        fired[...] = v > threshold
        v[fired.astype(bool)] = 0
    return spikes


def wrap(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Wrap into [-2^bits, 2^bits), as two's complement does."""
    wrapped: NDArray[np.int64] = (values + 2**bits) % 2 ** (bits + 1) - 2**bits
    return wrapped


def _leak(values: NDArray[np.int64], decay: int | Ints) -> NDArray[np.int64]:
    keeps: NDArray[np.int64] = np.asarray(DECAY_ONE - decay, np.int64)
    kept: NDArray[np.int64] = np.abs(values) * keeps // DECAY_ONE
    return np.where(values < 0, -kept, kept)
