"""Levels about whole networks: wiring, time, and odd but legal files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import nir
import numpy as np

from stl_deploy.exporters.nir.conformance import rewrites
from stl_deploy.exporters.nir.conformance.builder import Case, Level, Nodes, graph


def wiring(dt: float) -> Iterator[Case]:
    """Edges beyond a chain."""
    level = Level("wiring", dt)
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


def time(dt: float) -> Iterator[Case]:
    """Add cases on the arrival time of values, and on several values at once."""
    level = Level("time", dt)
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


def files(dt: float) -> Iterator[Case]:
    """The same graph, stored in other ways that HDF5 and NIR allow."""
    level = Level("files", dt)
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
