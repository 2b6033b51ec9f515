"""Recompute both frontiers of a run from its raw files: ``python -m benchmarks.frontiers RUN ENERGY.json``.

None of the product's code is used: the spiking network is read from net.nir, the ANNs from their model.safetensors,
samples from test.npz, prices from a TOML file; counts, accuracies and joules are computed here from the definitions in
docs/energy.md. Prints each point beside the product's; exits with 1 if any differs by more than 1e-6 of it.

With ``--coverage`` it simulates the interval of the paired comparison instead: the share of drawn test sets whose
interval holds the true difference, over sample sizes and rates.

Networks: convolutions (stride 1, padded to the same size), 2 x 2 max pools, dense layers, LIF neurons that leak by 1/2
and reset to 0, a vote; images that repeat at each step; ANNs with batch norm. The ready-made digits model is one.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
PRICES = Path(__file__).parents[1] / "energy/prices/lists/horowitz45_int8_acc32.toml"
STEP_S = 1e-4
TOLERANCE = 1e-6
WEIGHT, STATE = 8, 32


@dataclass
class Prices:
    """Picojoules: an operation by name, an access by the size of its memory."""

    terms: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Prices:
        """Read the middle of each price."""
        given = tomllib.loads(path.read_text())["terms"]
        return Prices({name: float(np.mean(term["value"])) for name, term in given.items()})

    def word(self, bits: int, size: int) -> float:
        """One word's share of a 64-bit access, linear between 0 bytes at 0 J and the listed sizes."""
        sizes = [0, 8 * 1024, 32 * 1024, 1024 * 1024]
        costs = [0.0, *(self.terms[name] for name in ("sram_8KB", "sram_32KB", "sram_1MB"))]
        return float(np.interp(size, sizes, costs)) * bits / 64


def address(places: int) -> int:
    """Bits of an address among so many places."""
    return max(1, (places - 1).bit_length())


def packed(words: float, bits: int) -> int:
    """Bytes of packed words."""
    return ceil(words * bits / 8)


@dataclass
class Layer:
    """Weights ``[out, in]`` or ``[out, in, k, k]``; theta: of the neurons behind, None for the vote."""

    weight: Array
    bias: Array | None
    theta: Array | None
    pooled: bool

    @property
    def conv(self) -> bool:
        """Whether weights are shared."""
        return self.weight.ndim == 4

    @property
    def stored(self) -> tuple[int, int]:
        """Bits and number of the words in memory: all weights, or those that are not 0 with an index, if smaller."""
        nonzero, one_input = int(np.count_nonzero(self.weight)), self.weight[:, 0].size
        indexed = WEIGHT + address(one_input)
        if nonzero * indexed < self.weight.size * WEIGHT:
            return indexed, nonzero
        return WEIGHT, self.weight.size

    def windows(self, x: Array) -> Array:
        """Every window of a padded image ``[B, C, H, W, k, k]``."""
        pad = self.weight.shape[-1] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        return sliding_window_view(padded, self.weight.shape[-2:], axis=(2, 3))

    def apply(self, x: Array) -> Array:
        """Weighted sums of ``[B, ...]``."""
        if not self.conv:
            sums = x.reshape(len(x), -1) @ self.weight.T
            return sums if self.bias is None else sums + self.bias
        sums = np.einsum("bchwij,ocij->bohw", self.windows(x), self.weight, optimize=True)
        return sums if self.bias is None else sums + self.bias[:, None, None]

    def reached(self, events: Array) -> Array:
        """Synapses that events ``[B, ...]`` cross, by sample."""
        if not self.conv:
            return events.reshape(len(events), -1).sum(1) * self.weight.shape[0]
        return self.windows(events).sum((1, 2, 3, 4, 5)) * self.weight.shape[0]

    def met(self, events: Array) -> Array:
        """Different weights that events ``[B, ...]`` meet, by sample."""
        if not self.conv:
            return self.reached(events)
        return self.windows(events).any((2, 3)).sum((1, 2, 3)) * self.weight.shape[0]

    def outputs(self, inputs: tuple[int, ...]) -> int:
        """Number of outputs for an input shape."""
        return self.weight.shape[0] * (int(np.prod(inputs[1:])) if self.conv else 1)


def pool(x: Array) -> Array:
    """The largest of each 2 x 2 window."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))


def read_snn(path: Path) -> list[Layer]:
    """Read the layers of net.nir in their order."""
    with h5py.File(path) as file:
        nodes, edges = file["node/nodes"], {a.decode(): b.decode() for a, b in file["node/edges"][()]}
        layers, at = list[Layer](), edges["input"]
        while at != "output":
            node = nodes[at]
            kind = node["type"][()].decode()
            if kind in ("Conv2d", "Affine", "Linear"):
                bias = node["bias"][()].astype(float) if "bias" in node and np.any(node["bias"][()]) else None
                layers.append(Layer(node["weight"][()].astype(float), bias, None, pooled=False))
            elif kind == "LIF":
                share = STEP_S / node["tau"][()].astype(float)
                if not (np.allclose(share, 0.5) and np.allclose(share * node["r"][()], 1)):
                    raise SystemExit(f"{at}: expected neurons that leak by 1/2, with a gain of 1")
                layers[-1].theta = node["v_threshold"][()].astype(float)
            elif kind == "SumPool2d":
                layers[-1].pooled = True
            at = edges[at]
    return layers


def read_ann(folder: Path, vote: Layer) -> tuple[list[Layer], list[tuple[Array, Array]]]:
    """Read an ANN's layers and, of each, the factor and offset of its batch norm."""
    raw = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])

    def tensor(name: str) -> Array:
        first, last = header[name]["data_offsets"]
        flat = np.frombuffer(raw[8 + length + first : 8 + length + last], np.float32)
        return flat.reshape(header[name]["shape"]).astype(float)

    def bias_of(name: str) -> Array | None:
        return tensor(f"layers.{name}.bias") if f"layers.{name}.bias" in header else None

    layers, norms = list[Layer](), list[tuple[Array, Array]]()
    while f"layers.conv{len(norms) + 1}.weight" in header:
        number = len(norms) + 1
        scale, offset, mean, variance = (
            tensor(f"layers.norm{number}.{key}") for key in ("weight", "bias", "running_mean", "running_var")
        )
        factor, own = scale / np.sqrt(variance + 1e-5), bias_of(f"conv{number}")
        norms.append((factor, offset + factor * ((0 if own is None else own) - mean)))
        layers.append(Layer(tensor(f"layers.conv{number}.weight"), norms[-1][1], np.zeros(1), pooled=True))
    layers.append(Layer(tensor("layers.linear1.weight"), bias_of("linear1"), np.zeros(1), pooled=False))
    return [*layers, vote], norms


def spikes_of(layers: list[Layer], x: Array) -> tuple[list[Array], list[Array], Array]:
    """Run ``[T, B, ...]``; return each layer's inputs, its neurons' spikes, and the votes ``[T, B, classes]``."""
    steps = len(x)
    states = [0.0 for _ in layers]
    inputs: list[list[Array]] = [[] for _ in layers]
    fired: list[list[Array]] = [[] for _ in layers[:-1]]
    votes = []
    for t in range(steps):
        y = x[t].astype(float)
        for i, layer in enumerate(layers):
            inputs[i].append(y)
            y = layer.apply(y)
            if layer.theta is not None:
                states[i] = states[i] / 2 + y
                spikes = (states[i] > layer.theta).astype(float)
                states[i] = states[i] * (1 - spikes)
                fired[i].append(spikes)
                y = pool(spikes) if layer.pooled else spikes
        votes.append(y)
    return [np.stack(each) for each in inputs], [np.stack(each) for each in fired], np.stack(votes)


def snn_joules(layers: list[Layer], inputs: list[Array], fired: list[Array], prices: Prices, *, once: bool) -> float:
    """Joules of one inference. once: layer by layer, weights fetched once per inference; else once per step."""
    steps, samples = inputs[0].shape[:2]
    cost, p = 0.0, prices.terms
    for i, layer in enumerate(layers):
        events = inputs[i] != 0
        flat = events.reshape(steps * samples, *events.shape[2:])
        places, sums = int(np.prod(events.shape[2:])), layer.outputs(events.shape[2:])
        static = i == 0 and once  # an image's first layer is computed once for all of its steps
        times = 1 / steps if static else 1.0
        width, stored = layer.stored
        used = stored / layer.weight.size  # each input of the vote has as many weights that are not 0
        synops = float(layer.reached(flat).sum()) * used * times
        cost += synops * (p["mac"] if i == 0 else p["ac"])
        met = layer.met(events.any(0)) if once else layer.met(flat)
        cost += float(met.sum()) * used * prices.word(width, packed(stored, width))
        if layer.bias is not None:
            added = sums * steps * samples * times
            cost += added * p["add"]
            fetched = min(added, len(layer.bias) * samples * (1 if once else steps))
            cost += fetched * prices.word(STATE, packed(len(layer.bias), STATE))
        bits = address(places) + (WEIGHT if i == 0 else 0)
        queued = places * (1 if static or not once else steps)
        moved = (1 if i == 0 else 2) * int(events.sum()) * times
        cost += moved * prices.word(bits, packed(queued, bits))
        if layer.theta is None:
            continue
        spikes = fired[i]
        updates = spikes.size
        cost += updates * (p["shift"] + 2 * p["add"])  # the leak; its sum and the comparison
        if not once:
            cost += 2 * updates * prices.word(STATE, packed(updates / (steps * samples), STATE))
        if layer.pooled:
            neurons = spikes[0, 0].size
            cost += spikes.sum() * (p["add"] + 2 * prices.word(address(neurons), packed(neurons, address(neurons))))
            cost += updates / 4 * p["add"]  # comparisons of the pool
    return cost * 1e-12 / samples


def ann_point(layers: list[Layer], norms: list[tuple[Array, Array]], x: Array, labels: Array, prices: Prices) -> Any:
    """Return accuracy and joules of one pass, MACs on zero inputs skipped."""
    p, cost, y, samples = prices.terms, 0.0, x.astype(float), len(x)
    for i, layer in enumerate(layers):
        events, shape = y != 0, y.shape[1:] if layer.conv else (y[0].size,)
        places, sums = int(np.prod(shape)), layer.outputs(shape)
        width, stored = layer.stored
        macs = float(layer.reached(events).mean()) * stored / layer.weight.size
        cost += macs * (p["mul"] + p["ac"])
        met = float(layer.met(events).mean()) / layer.weight.size * stored
        cost += min(macs, met) * prices.word(width, packed(stored, width))
        if layer.bias is not None:
            cost += sums * p["add"] + len(layer.bias) * prices.word(STATE, packed(len(layer.bias), STATE))
        cost += places * prices.word(WEIGHT, packed(places, WEIGHT)) + sums * prices.word(WEIGHT, packed(sums, WEIGHT))
        if layer.theta is None:
            y = layer.apply(y)
            continue
        if i < len(norms):
            factor, offset = norms[i]
            plain = Layer(layer.weight, None, None, pooled=False)
            y = plain.apply(y) * factor[:, None, None] + offset[:, None, None]
        else:
            y = layer.apply(y)
        y = np.maximum(y, 0) if i < len(norms) else y  # the last one is linear; its ReLU is priced all the same
        cost += sums * (p["add"] + p["mul_state"] + p["shift"] + p["add"])  # ReLU; multiply, shift and clip
        if layer.pooled:
            y = pool(y)
            after = y[0].size
            cost += sums * p["add"] + sums * prices.word(WEIGHT, packed(sums, WEIGHT))
            cost += after * prices.word(WEIGHT, packed(after, WEIGHT))
    assert samples == len(labels)
    return float((y.argmax(1) == labels).mean()), cost * 1e-12


def snn_points(layers: list[Layer], x: Array, labels: Array, prices: Prices) -> Iterator[tuple[Any, ...]]:
    """Yield steps (None of an early exit), accuracy and joules streaming and layer by layer."""
    inputs, fired, votes = spikes_of(layers, x)
    scores = votes.cumsum(0) / np.arange(1, len(x) + 1)[:, None, None]

    def first(steps: int, kept: Any = slice(None)) -> tuple[list[Array], list[Array]]:
        return [each[:steps, kept] for each in inputs], [each[:steps, kept] for each in fired]

    steps = len(x)
    while steps:
        accuracy = float((scores[steps - 1].argmax(1) == labels).mean())
        both = (snn_joules(layers, *first(steps), prices, once=once) for once in (False, True))
        yield (steps, None, accuracy, *both)
        steps //= 2
    ahead = np.sort(scores, axis=2)
    sure = ahead[:, :, -1] - ahead[:, :, -2]
    for margin in sorted(set(np.quantile(sure[-1], (0.25, 0.5, 0.75))) - {0.0}):
        is_sure = sure >= margin - 1e-6  # votes are tenths in float32
        after = np.where(is_sure.any(0), is_sure.argmax(0) + 1, len(x))
        joules, right = 0.0, 0
        for stop in np.unique(after):
            kept = after == stop
            joules += kept.mean() * snn_joules(layers, *first(int(stop), kept), prices, once=False)
            right += int((scores[stop - 1, kept].argmax(1) == labels[kept]).sum())
        yield None, float(margin), right / len(labels), joules, joules


def recompute(run: Path, energy: Mapping[str, Any]) -> float:
    """Print every point beside the product's; return the largest relative difference."""
    data, prices = np.load(run / "test.npz"), Prices.read(PRICES)
    x, labels = data["x"], data["y"]
    snn = read_snn(run / "net.nir")
    worst = 0.0
    theirs = energy["frontier"]
    rows: list[tuple[str, float, float, float, Any]] = []
    for point, (_, _, accuracy, streaming, batched) in zip(
        theirs["snn"], snn_points(snn, x, labels, prices), strict=True
    ):
        rows.append((point["name"], accuracy, streaming, batched, point))
    for point, width in zip(theirs["ann"], (None, 0.75, 0.5, 0.25), strict=True):
        folder = run / "twin" if width is None else run / "frontier" / f"{width:g}"
        accuracy, joules = ann_point(*read_ann(folder, snn[-1]), x[0], labels, prices)
        rows.append((f"ANN, {point['name']}", accuracy, joules, joules, point))
    for name, accuracy, streaming, batched, point in rows:
        known = point["layer_by_layer_J"] or point["joules"]
        off = max(abs(streaming / point["joules"] - 1), abs(batched / known - 1), abs(accuracy - point["accuracy"]))
        worst = max(worst, off)
        print(f"{name:28} {accuracy:8.2%} {streaming:.6e} J {batched:.6e} J; off by {off:.1e}")
    return worst


def coverage(draws: int = 20_000) -> tuple[float, float]:
    """Return the least and mean share of intervals that hold the true difference, of 2 expected discordant and more."""
    from stl_deploy.energy.paired import interval  # what is put to the test

    rng, shares = np.random.default_rng(0), []
    for samples in (20, 50, 100, 359, 1000, 10_000):
        for expected in (2, 3, 5, 8, 13, 22, 40):
            for share in (0.5, 0.65, 0.8, 0.9, 1.0):
                rate = expected / samples
                if rate > 0.65:
                    continue
                chances = [rate * (1 - share), rate * share, 1 - rate]
                drawn, times = np.unique(rng.multinomial(samples, chances, draws)[:, :2], axis=0, return_counts=True)
                ends = np.array([interval(samples, int(b), int(c)) for b, c in drawn])
                true = rate * (2 * share - 1)
                holds = (ends[:, 0] <= true + 1e-12) & (true <= ends[:, 1] + 1e-12)
                shares.append(float(times[holds].sum() / draws))
    return min(shares), float(np.mean(shares))


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("energy", type=Path, nargs="?")
    parser.add_argument("--coverage", action="store_true")
    given = parser.parse_args(arguments)
    if given.coverage:
        least, mean = coverage()
        print(f"coverage of the 95 % interval: at least {least:.1%}, mean {mean:.1%}")
        sys.exit(0 if least >= 0.945 and mean <= 0.975 else 1)
    energy = json.loads((given.energy or given.run / "energy.json").read_text())
    if "frontier" not in energy:  # a ready-made run's: its narrower ANNs are trained when they are asked for
        parser.error(f"no frontiers in it; run 'stl-deploy energy {given.run} --frontier -o OUT', give OUT/energy.json")
    worst = recompute(given.run, energy)
    print(f"largest relative difference: {worst:.1e}")
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
