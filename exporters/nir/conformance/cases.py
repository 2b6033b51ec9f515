"""The kit's graphs, in levels: single nodes, neuron parameters, shapes, wiring, time, and odd but legal files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np

from stl_deploy.exporters.nir.conformance import rewrites
from stl_deploy.exporters.nir.conformance.builder import Builder, Case, Edges, graph

LEVELS: Mapping[str, str] = {
    "nodes": "one kind of node, then spiking neurons",
    "neurons": "thresholds, leaks, resets and time constants of neurons",
    "shapes": "strides, padding, dilation, groups, pooling windows, flatten",
    "wiring": "skips, sums, loops, nested graphs",
    "time": "delays, several spikes' worth of input, long and short sequences",
    "files": "odd but legal ways to store the same graph",
}
"""Level -> what its graphs exercise."""

Nodes = dict[str, nir.NIRNode]


def cases(dt: float) -> list[Case]:
    """Every graph of the kit, for time steps of `dt` (in the unit of the graphs' time constants).

    Example:
        >>> [case.name for case in cases(1e-4)][:2]
        ['affine-lif', 'linear-lif']
    """
    levels = (_nodes, _neurons, _shapes, _wiring, _time, _files)
    return [case for level in levels for case in level(dt)]


class _Level:
    """Collects the cases of one level."""

    def __init__(self, level: str, dt: float) -> None:
        self.level, self.dt = level, dt
        self.cases: list[Case] = []

    def builder(self, name: str) -> Builder:
        """Where the parts of the case `name` come from."""
        return Builder(name, self.dt)

    def add(
        self,
        b: Builder,
        about: str,
        nodes: Nodes,
        shape: Sequence[int] = (12,),
        out: Sequence[int] = (6,),
        edges: Edges | None = None,
        x: Any = None,
        rewrite: Callable[[Path], None] | None = None,
    ) -> None:
        """Add a case; without `edges` its nodes form a chain, without `x` its input is random spikes."""
        whole = graph(shape, nodes, out, edges)
        self.cases.append(Case(b.name, self.level, about, whole, b.x(*shape) if x is None else x, rewrite))


def _nodes(dt: float) -> Iterator[Case]:
    """Each primitive of NIR between an input and spiking neurons."""
    level = _Level("nodes", dt)
    b = level.builder("affine-lif")
    level.add(b, "Affine, LIF", {"fc": b.affine(12, 6), "lif": b.lif(6)})
    b = level.builder("linear-lif")
    level.add(b, "Linear, LIF", {"fc": b.linear(12, 6), "lif": b.lif(6)})
    b = level.builder("linear-if")
    level.add(b, "Linear, IF", {"fc": b.linear(12, 6), "if": b.if_(6)})
    b = level.builder("affine-cubalif")
    level.add(b, "Affine, CubaLIF", {"fc": b.affine(12, 6), "cuba": b.cuba(6)})
    for kind in ("li", "i", "cubali"):
        b = level.builder(f"{kind}-threshold")
        level.add(
            b,
            f"{_GRADED[kind][0]}, Threshold",
            {"fc": b.linear(12, 6), kind: _GRADED[kind][1](b), "threshold": nir.Threshold(b.full((6,), 0.75))},
        )
        b = level.builder(f"{kind}-lif")
        level.add(
            b,
            f"{_GRADED[kind][0]} as a graded signal, then LIF",
            {"fc": b.linear(12, 8), kind: _GRADED[kind][1](b, 8), "fc2": b.linear(8, 6), "lif": b.lif(6)},
        )
    b = level.builder("scale-lif")
    scale = np.asarray(b.rng.integers(1, 9, 6) / 4, np.float32)
    level.add(b, "Linear, Scale, LIF", {"fc": b.linear(12, 6), "scale": nir.Scale(scale), "lif": b.lif(6)})
    b = level.builder("conv2d-lif")
    level.add(b, "Conv2d, LIF", {"conv": b.conv(2, 3, (6, 6)), "lif": b.lif(3, 6, 6)}, (2, 6, 6), (3, 6, 6))
    b = level.builder("conv1d-lif")
    level.add(b, "Conv1d, LIF", {"conv": b.conv1(2, 3, 10), "lif": b.lif(3, 10)}, (2, 10), (3, 10))
    for name, pool in (("sumpool", nir.SumPool2d), ("avgpool", nir.AvgPool2d)):
        b = level.builder(f"{name}-lif")
        window = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])}
        level.add(
            b,
            f"{pool.__name__}, Conv2d, LIF",
            {"pool": pool(**window), "conv": b.conv(2, 3, (4, 4)), "lif": b.lif(3, 4, 4)},
            (2, 8, 8),
            (3, 4, 4),
        )
    b = level.builder("flatten-lif")
    level.add(
        b,
        "Flatten, Linear, LIF",
        {"flatten": nir.Flatten({"input": np.array([2, 4, 4])}, start_dim=0), "fc": b.linear(32, 6), "lif": b.lif(6)},
        (2, 4, 4),
    )
    b = level.builder("lif-alone")
    level.add(b, "LIF without weights", {"lif": b.lif(6)}, (6,))
    b = level.builder("two-layers")
    level.add(
        b,
        "Affine, LIF, Affine, LIF",
        {"fc1": b.affine(12, 10), "lif1": b.lif(10), "fc2": b.affine(10, 6), "lif2": b.lif(6)},
    )
    b = level.builder("two-layers-if")
    level.add(
        b,
        "Affine, IF, Affine, IF",
        {"fc1": b.affine(12, 10), "if1": b.if_(10), "fc2": b.affine(10, 6), "if2": b.if_(6)},
    )
    yield from level.cases


_GRADED: dict[str, tuple[str, Callable[..., nir.NIRNode]]] = {
    "li": ("LI", lambda b, n=6: nir.LI(b.full((n,), b.dt * 2), b.full((n,), 1), b.full((n,), 0))),
    "i": ("I", lambda b, n=6: nir.I(b.full((n,), 1 / b.dt))),
    "cubali": (
        "CubaLI",
        lambda b, n=6: nir.CubaLI(
            b.full((n,), b.dt * 2), b.full((n,), b.dt * 2), b.full((n,), 1), b.full((n,), 0), b.full((n,), 2)
        ),
    ),
}
"""Nodes with graded output, by short name: NIR's name and a builder of n of them."""


def _neurons(dt: float) -> Iterator[Case]:
    """Parameters of neurons, one at a time."""
    level = _Level("neurons", dt)

    def lif(name: str, about: str, **options: Any) -> None:
        b = level.builder(name)
        drawn = {key: value(b) if callable(value) else value for key, value in options.items()}
        level.add(b, about, {"fc": b.affine(12, 6, 1.5), "lif": b.lif(6, **drawn)})

    def spread(low: float, step: float) -> Callable[[Builder], Any]:
        return lambda b: np.asarray(low + step * b.rng.permutation(6), np.float32)

    lif("threshold-per-neuron", "a threshold per neuron", v_threshold=spread(0.25, 0.125))
    lif("threshold-small", "thresholds of 1/1024: every positive potential fires", v_threshold=2.0**-10)
    lif("threshold-large", "thresholds out of reach: no neuron fires", v_threshold=2.0**20)
    lif("threshold-decimal", "thresholds of 0.3, which float32 rounds", v_threshold=0.3)
    lif("tau-per-neuron", "a time constant per neuron", tau=lambda b: dt * 2.0 ** b.rng.permutation([1, 1, 2, 2, 3, 3]))
    lif("tau-of-one-step", "time constants of one step: no memory with Euler steps", tau=dt)
    lif("tau-long", "time constants of 64 steps", tau=dt * 64, v_threshold=2.0**-5)
    lif("r-2", "an input resistance of 2", r=2.0)
    lif("r-per-neuron", "an input resistance per neuron", r=spread(0.5, 0.25))
    lif("leak-up", "a leak potential above zero", v_leak=0.25)
    lif("leak-down", "a leak potential below zero", v_leak=-0.5)
    lif("leak-above-threshold", "a leak potential above the threshold: neurons fire without input", v_leak=1.0)
    lif("reset-below", "a reset potential below zero", v_reset=-0.5)
    lif("reset-above", "a reset potential above zero, below the threshold", v_reset=0.25)
    lif("reset-per-neuron", "a reset potential per neuron", v_reset=spread(-0.5, 0.125))
    lif(
        "all-parameters",
        "every parameter of LIF off its default",
        r=1.5,
        v_leak=0.125,
        v_reset=-0.25,
        v_threshold=spread(0.25, 0.125),
    )
    for kind in ("lif", "if"):
        b = level.builder(f"{kind}-ties")
        neuron = b.lif(6, v_threshold=1.0) if kind == "lif" else b.if_(6, v_threshold=2.0)
        weight = np.asarray(2.0 * np.eye(6) if kind == "lif" else np.eye(6), np.float32)
        level.add(
            b,
            f"{kind.upper()}: potentials exactly on the threshold",
            {"fc": nir.Linear(weight), kind: neuron},
            (6,),
            x=b.x(6, rate=0.7),
        )
    b = level.builder("if-r")
    level.add(
        b,
        "IF with an input resistance per neuron",
        {"fc": b.linear(12, 6), "if": b.if_(6, r=np.asarray(b.rng.integers(1, 5, 6) / (2 * dt), np.float32))},
    )
    b = level.builder("if-reset")
    level.add(b, "IF with a reset potential below zero", {"fc": b.linear(12, 6), "if": b.if_(6, v_reset=-1.0)})
    b = level.builder("if-inhibited")
    level.add(
        b,
        "IF driven far below zero, then up",
        {"fc": nir.Linear(b.full((6, 12), 0.25)), "if": b.if_(6)},
        x=np.concatenate([-b.x(12, rate=0.9, steps=6), b.x(12, rate=0.9, steps=14)]),
    )
    for name, about, options in (
        ("cuba-w_in", "CubaLIF with w_in per neuron", {"w_in": np.asarray([1, 2, 4, 1, 2, 4], np.float32)}),
        ("cuba-tau_syn", "CubaLIF whose synapse is slower than its membrane", {"tau_syn": dt * 4}),
        ("cuba-leak", "CubaLIF with a leak potential", {"v_leak": 0.25}),
        ("cuba-reset", "CubaLIF with a reset potential", {"v_reset": -0.25}),
        (
            "cuba-threshold",
            "CubaLIF with a threshold per neuron",
            {"v_threshold": np.asarray([1, 2, 3, 4, 5, 6], np.float32) / 8},
        ),
    ):
        b = level.builder(name)
        level.add(b, about, {"fc": b.affine(12, 6), "cuba": b.cuba(6, **options)})
    b = level.builder("graded-input")
    level.add(
        b,
        "real-valued input",
        {"fc": b.affine(12, 6), "lif": b.lif(6)},
        x=np.asarray(b.rng.integers(-8, 17, (16, 3, 12)) / 8, np.float32),
    )
    yield from level.cases


def _shapes(dt: float) -> Iterator[Case]:
    """Shapes of layers."""
    level = _Level("shapes", dt)

    def conv(
        name: str,
        about: str,
        out: tuple[int, int],
        kernel: Any = 3,
        channels: tuple[int, int] = (2, 4),
        size: tuple[int, int] = (6, 6),
        **options: Any,
    ) -> None:
        b = level.builder(name)
        inputs, outputs = channels
        level.add(
            b,
            about,
            {"conv": b.conv(inputs, outputs, size, kernel, **options), "lif": b.lif(outputs, *out)},
            (inputs, *size),
            (outputs, *out),
        )

    conv("conv-no-padding", "Conv2d without padding", (4, 4), padding=0)
    conv("conv-stride-2", "Conv2d, stride 2", (3, 3), stride=2)
    conv("conv-stride-pair", "Conv2d, stride (2, 1)", (3, 6), stride=(2, 1))
    conv("conv-padding-pair", "Conv2d, padding (2, 0)", (8, 4), padding=(2, 0))
    conv("conv-dilation", "Conv2d, dilation 2, padding 2", (6, 6), dilation=2, padding=2)
    conv("conv-dilation-pair", "Conv2d, dilation (1, 2), padding (1, 2)", (6, 6), dilation=(1, 2), padding=(1, 2))
    conv("conv-groups", "Conv2d, two groups", (6, 6), channels=(4, 6), groups=2)
    conv("conv-depthwise", "Conv2d, one group per channel", (6, 6), channels=(4, 4), groups=4)
    conv("conv-depthwise-2", "Conv2d, one group per channel, two outputs each", (6, 6), channels=(3, 6), groups=3)
    conv("conv-1x1", "Conv2d, kernel 1x1", (6, 6), kernel=1, padding=0)
    conv("conv-1x5", "Conv2d, kernel 1x5", (6, 6), kernel=(1, 5), padding=(0, 2))
    conv("conv-even-kernel", "Conv2d, kernel 2x2", (5, 5), kernel=2, padding=0)
    conv("conv-large-kernel", "Conv2d, the kernel as large as the image", (1, 1), kernel=6, padding=0)
    conv("conv-oblong", "Conv2d on an image of 4x9", (4, 9), size=(4, 9))
    conv("conv-same", "Conv2d, padding 'same'", (6, 6), padding="same")
    conv("conv-valid", "Conv2d, padding 'valid'", (4, 4), padding="valid")
    conv(
        "conv-uneven-stride", "Conv2d, stride 2 on a size that leaves a rest", (3, 3), size=(7, 7), padding=0, stride=2
    )
    for name, about, out, options in (
        ("conv1d-stride", "Conv1d, stride 2", 5, {"stride": 2}),
        ("conv1d-dilation", "Conv1d, dilation 2", 8, {"dilation": 2}),
        ("conv1d-no-padding", "Conv1d without padding", 8, {"padding": 0}),
    ):
        b = level.builder(name)
        level.add(b, about, {"conv": b.conv1(2, 3, 10, **options), "lif": b.lif(3, out)}, (2, 10), (3, out))
    b = level.builder("conv1d-groups")
    level.add(b, "Conv1d, two groups", {"conv": b.conv1(4, 6, 10, groups=2), "lif": b.lif(6, 10)}, (4, 10), (6, 10))
    for name, about, pool, kernel, stride, padding, out in (
        ("sumpool-3", "SumPool2d, window 3, stride 3", nir.SumPool2d, 3, 3, 0, 3),
        ("sumpool-overlap", "SumPool2d, window 3, stride 2: windows overlap", nir.SumPool2d, 3, 2, 0, 4),
        ("sumpool-padded", "SumPool2d with padding", nir.SumPool2d, 3, 3, 1, 3),
        ("avgpool-overlap", "AvgPool2d, window 4, stride 1", nir.AvgPool2d, 4, 1, 0, 6),
        ("avgpool-padded", "AvgPool2d with padding: zeros count", nir.AvgPool2d, 2, 2, 1, 5),
    ):
        b = level.builder(name)
        size = 9 if pool is nir.SumPool2d else 9 if stride == 1 else 8
        both = [np.array([value, value]) for value in (kernel, stride, padding)]
        level.add(b, about, {"pool": pool(*both), "lif": b.lif(2, out, out)}, (2, size, size), (2, out, out))
    b = level.builder("pool-of-spikes")
    pair, none = np.array([2, 2]), np.array([0, 0])
    level.add(
        b,
        "Conv2d, LIF, SumPool2d, Conv2d, LIF",
        {
            "conv1": b.conv(2, 3, (8, 8)),
            "lif1": b.lif(3, 8, 8),
            "pool": nir.SumPool2d(pair, pair, none),
            "conv2": b.conv(3, 4, (4, 4)),
            "lif2": b.lif(4, 4, 4),
        },
        (2, 8, 8),
        (4, 4, 4),
    )
    b = level.builder("flatten-of-spikes")
    level.add(
        b,
        "Conv2d, LIF, Flatten, Linear, LIF",
        {
            "conv": b.conv(2, 3, (4, 4)),
            "lif1": b.lif(3, 4, 4),
            "flatten": nir.Flatten({"input": np.array([3, 4, 4])}, start_dim=0),
            "fc": b.linear(48, 6),
            "lif2": b.lif(6),
        },
        (2, 4, 4),
    )
    b = level.builder("one-neuron")
    level.add(b, "one input, one neuron", {"fc": nir.Linear(b.full((1, 1), 1.5)), "lif": b.lif(1)}, (1,), (1,))
    b = level.builder("wide")
    level.add(b, "300 inputs, 200 neurons", {"fc": b.affine(300, 200), "lif": b.lif(200)}, (300,), (200,))
    yield from level.cases


def _wiring(dt: float) -> Iterator[Case]:
    """Edges beyond a chain."""
    level = _Level("wiring", dt)
    b = level.builder("skip")
    level.add(
        b,
        "spikes added to what a later layer makes of them",
        {"fc1": b.affine(12, 6), "lif1": b.lif(6), "fc2": b.affine(6, 6), "lif2": b.lif(6)},
        edges=[*_chain("input fc1 lif1 fc2 lif2 output"), ("lif1", "lif2")],
    )
    b = level.builder("two-branches")
    level.add(
        b,
        "two layers of weights summed by the neurons after them",
        {"left": b.affine(12, 6), "right": b.linear(12, 6), "lif": b.lif(6)},
        edges=[("input", "left"), ("input", "right"), ("left", "lif"), ("right", "lif"), ("lif", "output")],
    )
    b = level.builder("fan-out")
    level.add(
        b,
        "one population read by two, which meet again",
        {
            "fc": b.affine(12, 8),
            "lif": b.lif(8),
            "fc_a": b.linear(8, 6),
            "a": b.lif(6),
            "fc_b": b.linear(8, 6),
            "b": b.lif(6, v_threshold=1.0),
            "fc_c": b.linear(6, 6),
            "c": b.lif(6),
        },
        edges=[*_chain("input fc lif fc_a a fc_c c output"), *_chain("lif fc_b b fc_c")],
    )
    b = level.builder("input-skips")
    level.add(
        b,
        "the input added before the last neurons",
        {"fc1": b.affine(6, 6), "lif1": b.lif(6), "fc2": b.linear(6, 6), "lif2": b.lif(6)},
        (6,),
        edges=[*_chain("input fc1 lif1 fc2 lif2 output"), ("input", "lif2")],
    )
    for kind in ("lif", "if", "cuba"):
        b = level.builder(f"loop-{kind}")
        neuron = {"lif": b.lif, "if": b.if_, "cuba": b.cuba}[kind](6)
        level.add(
            b,
            f"{kind}: all-to-all recurrence",
            {"fc": b.affine(12, 6), kind: neuron, "loop": b.linear(6, 6, 0.5)},
            edges=[*_chain(f"input fc {kind} output"), (kind, "loop"), ("loop", kind)],
        )
    b = level.builder("loop-bias")
    level.add(
        b,
        "recurrent weights with a bias: is it there at the first step?",
        {"fc": b.linear(12, 6), "lif": b.lif(6), "loop": nir.Affine(b.weight(6, 6, scale=0.5), b.full((6,), 0.75))},
        edges=[*_chain("input fc lif output"), ("lif", "loop"), ("loop", "lif")],
    )
    b = level.builder("loop-self")
    level.add(
        b,
        "neurons that read their own spikes",
        {"fc": b.affine(12, 6), "lif": b.lif(6)},
        edges=[*_chain("input fc lif output"), ("lif", "lif")],
    )
    b = level.builder("loop-of-two")
    level.add(
        b,
        "two populations in one loop",
        {"fc": b.affine(12, 6), "a": b.lif(6), "ab": b.linear(6, 6), "b": b.lif(6), "ba": b.linear(6, 6, 0.5)},
        edges=[*_chain("input fc a ab b output"), *_chain("b ba a")],
    )
    b = level.builder("loop-conv")
    level.add(
        b,
        "a convolution that leads back",
        {"conv": b.conv(2, 3, (5, 5)), "lif": b.lif(3, 5, 5), "back": b.conv(3, 3, (5, 5))},
        (2, 5, 5),
        (3, 5, 5),
        [*_chain("input conv lif output"), *_chain("lif back lif")],
    )
    b = level.builder("loop-then-layer")
    level.add(
        b,
        "a recurrent layer, then a feed-forward one",
        {"fc": b.affine(12, 8), "lif1": b.lif(8), "loop": b.linear(8, 8, 0.5), "fc2": b.affine(8, 6), "lif2": b.lif(6)},
        edges=[*_chain("input fc lif1 fc2 lif2 output"), *_chain("lif1 loop lif1")],
    )
    b = level.builder("nested")
    inner = graph((12,), {"fc": b.affine(12, 8), "lif": b.lif(8)}, (8,))
    level.add(b, "a graph inside the graph", {"inner": inner, "fc": b.affine(8, 6), "lif": b.lif(6)})
    b = level.builder("nested-twice")
    inner = graph((8,), {"fc": b.affine(8, 8), "lif": b.lif(8)}, (8,))
    outer = graph((12,), {"fc": b.affine(12, 8), "inner": inner}, (8,))
    level.add(b, "a graph inside a graph inside the graph", {"outer": outer, "fc": b.affine(8, 6), "lif": b.lif(6)})
    b = level.builder("nested-same-names")
    inner = graph((12,), {"fc": b.affine(12, 8), "lif": b.lif(8)}, (8,))
    level.add(
        b, "nodes of the inner and outer graph with equal names", {"lif_": inner, "fc": b.affine(8, 6), "lif": b.lif(6)}
    )
    b = level.builder("deep")
    layers: Nodes = {}
    for i in range(6):
        layers |= {f"fc{i}": b.affine(12 if i == 0 else 8, 8), f"lif{i}": b.lif(8, v_threshold=0.25)}
    level.add(b, "six layers", {**layers, "fc": b.affine(8, 6), "lif": b.lif(6)})
    yield from level.cases


def _chain(names: str) -> list[tuple[str, str]]:
    parts = names.split()
    return list(pairwise(parts))


def _time(dt: float) -> Iterator[Case]:
    """When values arrive, and what many at once do."""
    level = _Level("time", dt)
    for steps in (1, 3):
        b = level.builder(f"delay-{steps}")
        level.add(
            b,
            f"a delay of {steps} step{'s' * (steps > 1)} before the weights",
            {"delay": nir.Delay(b.full((12,), steps * dt)), "fc": b.affine(12, 6), "lif": b.lif(6)},
        )
    b = level.builder("delay-per-input")
    level.add(
        b,
        "a delay of its own for each input",
        {"delay": nir.Delay(np.asarray(dt * (np.arange(12) % 4), np.float32)), "fc": b.linear(12, 6), "lif": b.lif(6)},
    )
    b = level.builder("delay-between")
    level.add(
        b,
        "a delay between two layers",
        {
            "fc1": b.affine(12, 8),
            "lif1": b.lif(8),
            "delay": nir.Delay(b.full((8,), 2 * dt)),
            "fc2": b.affine(8, 6),
            "lif2": b.lif(6),
        },
    )
    b = level.builder("latency")
    layers: Nodes = {}
    for i in range(4):
        layers |= {f"fc{i}": nir.Linear(np.asarray(2 * np.eye(6), np.float32)), f"lif{i}": b.lif(6)}
    level.add(b, "four layers that pass every spike on: in the same step", layers, (6,))
    b = level.builder("burst")
    level.add(
        b,
        "input worth many thresholds in one step",
        {"fc": nir.Linear(b.full((6, 12), 2.0)), "lif": b.lif(6)},
        x=b.x(12, rate=0.6) * (np.arange(16) % 5 == 0)[:, None, None].astype(np.float32),
    )
    b = level.builder("burst-if")
    level.add(
        b,
        "IF: input worth many thresholds in one step",
        {"fc": nir.Linear(b.full((6, 12), 0.75)), "if": b.if_(6)},
        x=b.x(12, rate=0.6) * (np.arange(16) % 5 == 0)[:, None, None].astype(np.float32),
    )
    b = level.builder("one-step")
    level.add(b, "a single step", {"fc": b.affine(12, 6), "lif": b.lif(6)}, x=b.x(12, steps=1))
    b = level.builder("many-steps")
    level.add(b, "300 steps", {"fc": b.affine(12, 6), "lif": b.lif(6)}, x=b.x(12, steps=300, rate=0.2))
    b = level.builder("silence")
    level.add(
        b, "no input: only biases and leaks", {"fc": b.affine(12, 6), "lif": b.lif(6, v_leak=0.75)}, x=b.x(12, rate=0.0)
    )
    b = level.builder("pause")
    level.add(
        b,
        "input, a pause, input: neurons decay without events",
        {"fc": b.linear(12, 6), "lif": b.lif(6)},
        x=np.concatenate([b.x(12, steps=5), b.x(12, steps=8, rate=0.0), b.x(12, steps=5)]),
    )
    yield from level.cases


def _files(dt: float) -> Iterator[Case]:
    """The same graph, stored in other ways that HDF5 and NIR allow."""
    level = _Level("files", dt)
    for name, about, rewrite in rewrites.ALL:
        b = level.builder(f"file-{name}")
        level.add(
            b,
            about,
            {"fc1": b.affine(12, 8), "lif1": b.lif(8), "fc2": b.affine(8, 6), "lif2": b.lif(6)},
            rewrite=rewrite,
        )
    for name, about, names in (
        ("names-numbers", "nodes named 0, 1, 2, ...", ("0", "1", "2", "3")),
        ("names-unsorted", "names whose alphabetical order is not the graph's", ("z", "m", "a", "b")),
        ("names-dots", "names with dots, as modules have them", ("net.0", "net.1", "net.2", "net.3")),
        ("names-spaces", "names with spaces and letters beyond ASCII", ("Schicht 1", "θ 1", "Schicht 2", "θ 2")),
    ):
        b = level.builder(f"file-{name}")
        parts = (b.affine(12, 8), b.lif(8), b.affine(8, 6), b.lif(6))
        level.add(b, about, dict(zip(names, parts, strict=True)))
    b = level.builder("file-conv-no-input-shape")
    conv = b.conv(2, 3, (6, 6))
    conv.input_shape = None
    level.add(
        b,
        "Conv2d without input_shape",
        {"conv": conv, "lif": b.lif(3, 6, 6)},
        (2, 6, 6),
        (3, 6, 6),
        rewrite=rewrites.without_input_shape,
    )
    yield from level.cases
