"""The networks that every framework builds: layers as plain dicts, arrays beside them, all from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import nir
import numpy as np

STEPS, BATCH = 25, 4


DT = 1e-4


@dataclass
class Net:
    """layers: dicts with ``op`` and parameters, arrays named by string; x ``[T, B, *input]``.

    edges: pairs of layers' numbers beside those from each layer to the next; ``unlinked``: layers whose number before
    does not lead to them.
    """

    shape: tuple[int, ...]
    layers: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    edges: tuple[tuple[int, int], ...] = ()
    unlinked: tuple[int, ...] = ()


class _Maker:
    def __init__(self, seed: int, ties: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.ties = ties
        self.beta, self.beta_syn = (0.5, 0.75) if ties else (0.9, 0.8)
        self.theta = 1.0 if ties else 0.93
        self.arrays: dict[str, np.ndarray] = {}
        self.layers: list[dict[str, Any]] = []

    def array(self, shape: tuple[int, ...], scale: float) -> str:
        """A named array: multiples of 1/8 where ties are wanted, else normal numbers."""
        value = self.rng.normal(scale * 0.15, scale, shape)
        value = np.round(value * 8) / 8 if self.ties else value
        name = f"a{len(self.arrays)}"
        self.arrays[name] = value.astype(np.float32)
        return name

    def linear(self, inputs: int, outputs: int) -> None:
        weight = self.array((outputs, inputs), 1.6 / np.sqrt(inputs))
        self.layers.append({"op": "linear", "weight": weight, "bias": self.array((outputs,), 0.2)})

    def conv(self, inputs: int, outputs: int, **options: Any) -> None:
        weight = self.array((outputs, inputs, 3, 3), 1.6 / np.sqrt(inputs * 9))
        options = {"stride": 1, "padding": 1, **options}
        self.layers.append({"op": "conv", "weight": weight, "bias": self.array((outputs,), 0.2), **options})

    def grouped(self, inputs: int, outputs: int, groups: int, stride: int = 1) -> None:
        weight = self.array((outputs, inputs // groups, 3, 3), 1.6 / np.sqrt(inputs // groups * 9))
        bias = self.array((outputs,), 0.2)
        self.layers.append(
            {"op": "conv", "weight": weight, "bias": bias, "stride": stride, "padding": 1, "groups": groups}
        )

    def neuron(self, op: str, shape: tuple[int, ...], **more: Any) -> None:
        self.layers.append(
            {"op": op, "shape": shape, "beta": self.beta, "beta_syn": self.beta_syn, "theta": self.theta, **more}
        )

    def various(self, shape: tuple[int, ...]) -> None:
        """Neurons that have a threshold and a decay of their own, or share them in a channel of ``[C, H, W]``."""
        size = (shape[0], *(1,) * (len(shape) - 1))
        theta = self.rng.integers(2, 6, size) / 4 if self.ties else self.rng.uniform(0.5, 1.5, size)
        beta = self.rng.choice([0.5, 0.75], size) if self.ties else self.rng.uniform(0.5, 0.98, size)
        names = {"theta": f"a{len(self.arrays)}", "beta": f"a{len(self.arrays) + 1}"}
        self.arrays |= {names["theta"]: theta.astype(np.float32), names["beta"]: beta.astype(np.float32)}
        self.layers.append({"op": "lif", "shape": shape, **names})

    def net(
        self, shape: tuple[int, ...], edges: tuple[tuple[int, int], ...] = (), unlinked: tuple[int, ...] = ()
    ) -> Net:
        x = self.rng.random((STEPS, BATCH, *shape)) < 0.4
        return Net(shape, self.layers, {**self.arrays, "x": x.astype(np.float32)}, edges, unlinked)


def mlp(seed: int, ties: bool, neuron: str = "lif") -> Net:
    """Two layers of neurons."""
    make = _Maker(seed, ties)
    make.linear(16, 24)
    make.neuron(neuron, (24,))
    make.linear(24, 8)
    make.neuron(neuron, (8,))
    return make.net((16,))


def various(seed: int, ties: bool) -> Net:
    """Two layers whose neurons differ in threshold and decay."""
    make = _Maker(seed, ties)
    make.linear(16, 24)
    make.various((24,))
    make.linear(24, 8)
    make.various((8,))
    return make.net((16,))


def leaky(seed: int, ties: bool, v_leak: float, v_reset: float) -> Net:
    """Two layers whose neurons leak to one potential and are reset to one."""
    make = _Maker(seed, ties)
    make.linear(16, 24)
    make.neuron("lif", (24,), v_leak=v_leak, v_reset=v_reset)
    make.linear(24, 8)
    make.neuron("lif", (8,), v_leak=v_leak, v_reset=v_reset)
    return make.net((16,))


def conv(seed: int, ties: bool, pool: str = "sum", neuron: str = "lif") -> Net:
    """Convolution, pooling, strided convolution, flatten, linear."""
    make = _Maker(seed, ties)
    make.conv(2, 4)
    make.neuron(neuron, (4, 8, 8))
    make.layers.append({"op": f"{pool}pool", "kernel": 2})
    make.conv(4, 6, stride=2)
    make.neuron(neuron, (6, 2, 2))
    make.layers.append({"op": "flatten"})
    make.linear(24, 5)
    make.neuron(neuron, (5,))
    return make.net((2, 8, 8))


def conv_only(seed: int, ties: bool) -> Net:
    """Convolutions and neurons, nothing between."""
    make = _Maker(seed, ties)
    make.conv(2, 4)
    make.neuron("lif", (4, 8, 8))
    make.conv(4, 3, stride=2)
    make.neuron("lif", (3, 4, 4))
    return make.net((2, 8, 8))


def conv_various(seed: int, ties: bool) -> Net:
    """Convolutions whose channels differ in threshold and decay."""
    make = _Maker(seed, ties)
    make.conv(2, 4)
    make.various((4, 8, 8))
    make.conv(4, 3, stride=2)
    make.various((3, 4, 4))
    return make.net((2, 8, 8))


def conv_groups(seed: int, ties: bool) -> Net:
    """Convolutions in two groups, and channel by channel."""
    make = _Maker(seed, ties)
    make.grouped(4, 6, groups=2)
    make.neuron("lif", (6, 8, 8))
    make.grouped(6, 6, groups=6, stride=2)
    make.neuron("lif", (6, 4, 4))
    return make.net((4, 8, 8))


def recurrent(seed: int, ties: bool, neuron: str = "lif") -> Net:
    """A layer with all-to-all recurrence, then a feed-forward one."""
    make = _Maker(seed, ties)
    make.linear(16, 12)
    weight, bias = make.array((12, 12), 0.5), make.array((12,), 0.1)
    make.neuron(f"r{neuron}", (12,), weight=weight, bias=bias)
    make.linear(12, 6)
    make.neuron("lif", (6,))
    return make.net((16,))


def skip(seed: int, ties: bool, neuron: str) -> Net:
    """Spikes added to what a convolution makes of them."""
    make = _Maker(seed, ties)
    make.conv(2, 4)
    make.neuron(neuron, (4, 8, 8))
    make.conv(4, 4)
    make.neuron(neuron, (4, 8, 8))
    make.conv(4, 3, stride=2)
    make.neuron(neuron, (3, 4, 4))
    return make.net((2, 8, 8), edges=((1, 3),))


def branches(seed: int, ties: bool) -> Net:
    """Two layers of weights side by side, added up with spikes from before them and by the neurons after them."""
    make = _Maker(seed, ties)
    make.linear(16, 12)
    make.neuron("lif", (12,))
    make.linear(12, 12)
    make.linear(12, 12)
    make.neuron("lif", (12,))
    make.linear(12, 6)
    make.neuron("lif", (6,))
    return make.net((16,), edges=((1, 3), (2, 4), (1, 4)), unlinked=(3,))


def loop(seed: int, ties: bool, neuron: str) -> Net:
    """All-to-all recurrence, with a bias."""
    make = _Maker(seed, ties)
    make.linear(16, 12)
    make.neuron(neuron, (12,))
    make.linear(12, 12)
    make.linear(12, 6)
    make.neuron("lif", (6,))
    return make.net((16,), edges=((2, 1), (1, 3)), unlinked=(3,))


def loop_self(seed: int, ties: bool, neuron: str) -> Net:
    """Neurons that read their own spikes."""
    make = _Maker(seed, ties)
    make.linear(16, 12)
    make.neuron(neuron, (12,))
    make.linear(12, 6)
    make.neuron(neuron, (6,))
    return make.net((16,), edges=((1, 1), (3, 3)))


def loop_conv(seed: int, ties: bool) -> Net:
    """A convolution that leads back."""
    make = _Maker(seed, ties)
    make.conv(2, 3)
    make.neuron("lif", (3, 6, 6))
    make.conv(3, 3)
    make.conv(3, 2, stride=2)
    make.neuron("lif", (2, 3, 3))
    return make.net((2, 6, 6), edges=((2, 1), (1, 3)), unlinked=(3,))


GRAPHS = {
    "mlp-leak": lambda seed, ties: leaky(seed, ties, 0.25, 0),
    "mlp-reset": lambda seed, ties: leaky(seed, ties, -0.25, -0.25),
    "conv-various": conv_various,
    "conv-groups": conv_groups,
    "skip": lambda seed, ties: skip(seed, ties, "lif"),
    "skip-if": lambda seed, ties: skip(seed, ties, "if"),
    "branches": branches,
    "loop": lambda seed, ties: loop(seed, ties, "lif"),
    "loop-cuba": lambda seed, ties: loop(seed, ties, "cuba"),
    "loop-self": lambda seed, ties: loop_self(seed, ties, "lif"),
    "loop-self-if": lambda seed, ties: loop_self(seed, ties, "if"),
    "loop-conv": loop_conv,
}
"""Networks that only stl-deploy writes."""

NETS = {
    "mlp": mlp,
    "mlp-if": lambda seed, ties: mlp(seed, ties, "if"),
    "mlp-various": various,
    "mlp-cuba": lambda seed, ties: mlp(seed, ties, "cuba"),
    "conv": conv_only,
    "conv-avg": lambda seed, ties: conv(seed, ties, "avg"),
    "conv-max": lambda seed, ties: conv(seed, ties, "max"),
    "conv-sum": lambda seed, ties: conv(seed, ties, "sum"),
    "conv-if": lambda seed, ties: conv(seed, ties, "avg", "if"),
    "conv-sum-if": lambda seed, ties: conv(seed, ties, "sum", "if"),
    "conv-max-if": lambda seed, ties: conv(seed, ties, "max", "if"),
    "recurrent": recurrent,
    "recurrent-cuba": lambda seed, ties: recurrent(seed, ties, "cuba"),
    **GRAPHS,
}


def canonical(net: Net) -> nir.NIRGraph:
    """The net as stl-deploy writes it: dt 1e-4, fires where v >= θ, resets to 0 (dialect ``stl``)."""
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array(net.shape))}
    for index, layer in enumerate(resolved(net.layers, net.arrays)):
        nodes[f"n{index}"] = _node(layer)
        if layer["op"] == "maxpool":
            nodes[f"n{index}-max"] = nir.Threshold(np.array(0.5, np.float32))
    nodes["output"] = nir.Output(np.array(net.layers[-1]["shape"]))
    edges = [edge for edge in pairwise(nodes) if edge[1] not in [f"n{index}" for index in net.unlinked]]
    edges += [(f"n{source}", f"n{target}") for source, target in net.edges]
    return nir.NIRGraph(nodes, edges, type_check=False)


def resolved(layers: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Layers with the arrays that they name put in."""
    return [{k: arrays[v] if isinstance(v, str) and v in arrays else v for k, v in layer.items()} for layer in layers]


def _node(layer: dict[str, Any]) -> nir.NIRNode:
    full = lambda value: np.broadcast_to(np.float32(value), layer["shape"]).copy()  # noqa: E731
    match layer["op"]:
        case "linear":
            return nir.Affine(layer["weight"], layer["bias"])
        case "conv":
            stride, padding = (layer["stride"],) * 2, (layer["padding"],) * 2
            return nir.Conv2d(None, layer["weight"], stride, padding, 1, layer.get("groups", 1), layer["bias"])
        case "sumpool" | "avgpool" | "maxpool" as pool:
            kind = nir.AvgPool2d if pool == "avgpool" else nir.SumPool2d
            return kind(np.array([layer["kernel"]] * 2), np.array([layer["kernel"]] * 2), np.array([0, 0]))
        case "flatten":
            return nir.Flatten({"input": None}, 0, -1)
        case "lif":
            tau = DT / (1 - np.float64(layer["beta"]))
            v_leak, v_reset = full(layer.get("v_leak", 0)), full(layer.get("v_reset", 0))
            return nir.LIF(full(tau), full(tau / DT), v_leak, full(layer["theta"]), v_reset)
        case "cuba":
            mem, syn = (1 / (1 - np.float64(layer[key])) for key in ("beta", "beta_syn"))
            taus = dict(tau_syn=full(DT * syn), tau_mem=full(DT * mem), r=full(mem), w_in=full(syn))
            return nir.CubaLIF(**taus, v_leak=full(0), v_threshold=full(layer["theta"]), v_reset=full(0))
        case "if":
            return nir.IF(full(1 / DT), full(layer["theta"]), full(0))
    raise ValueError(layer["op"])
