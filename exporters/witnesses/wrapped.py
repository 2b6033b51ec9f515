"""The integer model with nengo-loihi's registers: what arrives in a step wraps at 21 bits and a sign, u + bias at 23.

Lava and our model wrap u alone, at 24 bits. Where no register is passed, both are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.net import IntegerNet, SpikingLayer
from stl_deploy.exporters.netx.netx import read_netx
from stl_deploy.exporters.netx.simulate import Spikes, bias_of, simulate, through
from stl_deploy.exporters.netx.target import Loihi
from stl_deploy.exporters.netx.weights import lava_synapse
from stl_deploy.exporters.netx.wide_sums import WIDE
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, Ints
from stl_deploy.integers.simulate import IntegerRun, whole_numbers
from stl_deploy.integers.sums import adder, blocks

ARRIVING, U = 21, 23
"""Bits of the registers, without their signs (nengo-loihi 1.1.0: ``Q_BITS``, ``U_BITS``)."""


class Wrapped(Loihi):
    """What nengo-loihi must equal on every spike."""

    name = "loihi with registers of 21 bits"

    def integers(self, path: Path, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run a netx file on whole numbers."""
        return simulate_wrapped(read_netx(path), x)


def simulate_wrapped(net: IntegerNet, x: NDArray[Any]) -> IntegerRun:
    """As `stl_deploy.exporters.netx.simulate.simulate`, with these registers; every layer is recorded."""
    spikes: dict[str, Spikes] = {}

    def run(key: str, layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
        spikes[key] = _run_layer(layer, x)
        return spikes[key]

    return IntegerRun(through(net, whole_numbers(x, net.input_shape), run), spikes)


def parting(net: IntegerNet, x: NDArray[Any]) -> str | None:
    """How many spikes these registers change, the first of them, and what passed which register; None if none."""
    theirs, ours = simulate_wrapped(net, x).spikes, simulate(net, x, record=True).spikes
    differ = {key: spikes != ours[key] for key, spikes in theirs.items()}
    first = next((key for key, where in differ.items() if where.any()), None)
    if first is None:
        return None
    arriving: dict[str, NDArray[Any]] = {}

    def run(key: str, layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
        arriving[key] = x
        return theirs[key]

    through(net, whole_numbers(x, net.input_shape), run)
    step, sample, *neuron = np.argwhere(differ[first])[0].tolist()
    layer = dict(net.spiking)[first]
    until = arriving[first][: step + 1, sample : sample + 1]
    sums = adder(lava_synapse(layer), until)(until)[(slice(None), 0, *neuron)].astype(np.int64)
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
        f"nengo-loihi's registers change {count:,} of {of:,} spikes; the first: '{layer.node or first}', step {step}, "
        f"sample {sample}, neuron {neuron}: {why}"
    )


def _run_layer(layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
    synapse, neuron = lava_synapse(layer), layer.neuron
    add_up = adder(synapse, x)
    bias = bias_of(layer)
    added = 0 if bias is None else bias.astype(np.int64) << STATE_SHIFT
    threshold = neuron.threshold.astype(np.int64) << STATE_SHIFT
    spikes = np.empty((*x.shape[:2], *layer.shape), np.uint8)
    for part in blocks(synapse.shape, x):
        sums = add_up(x[:, part]).astype(np.int64) << STATE_SHIFT
        u, v = np.zeros(sums.shape[1:], np.int64), np.zeros(sums.shape[1:], np.int64)
        for now, fired in zip(sums, spikes[:, part], strict=True):
            u = wrap(_leak(u, neuron.i_decay) + wrap(now, ARRIVING), U)
            v = np.clip(_leak(v, neuron.v_decay) + wrap(u + added, U), 1 - STATE_TOP, STATE_TOP - 1)
            fired[...] = v > threshold
            v[fired.astype(bool)] = 0
    return spikes


def wrap(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Into [-2^bits, 2^bits), as two's complement does."""
    wrapped: NDArray[np.int64] = (values + 2**bits) % 2 ** (bits + 1) - 2**bits
    return wrapped


def _leak(values: NDArray[np.int64], decay: int | Ints) -> NDArray[np.int64]:
    keeps: NDArray[np.int64] = np.asarray(DECAY_ONE - decay, np.int64)
    kept: NDArray[np.int64] = np.abs(values) * keeps // DECAY_ONE
    return np.where(values < 0, -kept, kept)
