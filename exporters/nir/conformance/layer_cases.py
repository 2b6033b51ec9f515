"""Levels about single layers: kinds of nodes, parameters of neurons, shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nir
import numpy as np

from stl_deploy.exporters.nir.conformance.builder import Builder, Case, Level


def nodes(dt: float) -> Iterator[Case]:
    """Add each primitive of NIR between an input and spiking neurons."""
    level = Level("nodes", dt)
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


def neurons(dt: float) -> Iterator[Case]:
    """Parameters of neurons, one at a time."""
    level = Level("neurons", dt)

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


def shapes(dt: float) -> Iterator[Case]:
    """Shapes of layers."""
    level = Level("shapes", dt)

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
