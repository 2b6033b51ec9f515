"""Named refusals of chips that nothing is written for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.exporters.chips import speck
from stl_deploy.exporters.targets import registry
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Conv, Input, Neuron, Operand, Output, Program
from tests.exporters.netx.programs import conv_net


def asked(name: str, *neurons: dict[str, Any]) -> list[Finding]:
    nodes: list[Any] = [Input(name="in", shape=(3,), operands=())]
    for i, fields in enumerate(neurons):
        fields = {"decay": np.float32(0.5), "threshold": np.float32(1)} | fields
        nodes.append(Neuron(name=f"lif{i}", shape=(3,), operands=(Operand(nodes[-1].name),), **fields))
    nodes.append(Output(name="out", shape=(3,), operands=(Operand(nodes[-1].name),)))
    return list(registry().checks[name].check(Program(tuple(nodes), 1e-4)))


IF, NOTHING, MANY = np.float32(1), None, np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize(
    ("chip", "fields", "slugs"),
    [
        ("akida", {}, ["no-memory"]),
        ("akida", {"decay": NOTHING, "threshold": MANY}, []),
        ("spinnaker2", {}, ["tool-not-available"]),
        ("hls4ml", {}, ["not-released"]),
    ],
)
def test_refusals(chip: str, fields: dict[str, Any], slugs: list[str]) -> None:
    found = asked(chip, fields)
    assert [finding.slug for finding in found] == slugs
    for finding in found:
        assert finding.severity == "error"
        assert finding.reason.endswith(")")  # its source
        assert finding.remedy
        assert finding.node == (None if chip in ("spinnaker2", "hls4ml") else "lif0")


def test_every_population_is_named() -> None:
    assert [finding.node for finding in asked("akida", {}, {})] == ["lif0", "lif1"]


def on_speck(*layers: nn.Module, shape: tuple[int, ...] = (1, 8, 8)) -> set[str]:
    """What keeps a chain of layers off Speck, by slug."""
    net = stl.capture(nn.Sequential(*map(AtEachStep, layers)), torch.ones(3, 2, *shape), verify=False)
    return {found.slug for found in net.check("speck").findings if found.severity == "error"}


class AtEachStep(nn.Module):
    """A layer of pictures on a sequence of them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.of = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(x) if isinstance(self.of, stl.LIF) else self.of(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def fires(*shape: int, **options: Any) -> stl.LIF:
    return stl.LIF(shape, **{"decay": 1.0, "threshold": 0.5, "granularity": "layer"} | options)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, bias=False, padding=options.pop("padding", kernel // 2), **options)


LIMITS: list[tuple[tuple[nn.Module, ...], set[str]]] = [
    ((conv(1, 4), fires(4, 8, 8), conv(4, 2, stride=2), fires(2, 4, 4)), set()),
    ((conv(1, 4), fires(4, 8, 8, decay=0.5)), {"no-leak"}),
    ((conv(1, 4), fires(4, 8, 8), nn.AvgPool2d(2), conv(4, 2), fires(2, 4, 4)), {"average-pool"}),
    ((conv(1, 4, 3, padding=8), fires(4, 22, 22)), {"padding"}),
    ((conv(1, 4, dilation=2), fires(4, 6, 6)), {"dilation"}),
    ((conv(1, 4, stride=3), fires(4, 3, 3)), {"stride"}),
    ((conv(1, 300, 5), fires(300, 8, 8), conv(300, 9), fires(9, 8, 8)), {"layer-too-large"}),
    ((conv(1, 4), fires(4, 8, 8), nn.Flatten(), nn.Linear(256, 3, bias=False)), {"no-neuron", "no-spikes-out"}),
    (tuple(layer for _ in range(10) for layer in (conv(1, 1), fires(1, 8, 8))), {"too-many-layers"}),
]


@pytest.mark.parametrize(("layers", "slugs"), LIMITS, ids=["+".join(sorted(slugs)) or "none" for _, slugs in LIMITS])
def test_speck_s_limits(layers: tuple[nn.Module, ...], slugs: set[str]) -> None:
    assert on_speck(*layers) == slugs


def test_speck_s_cores_are_shared_out() -> None:
    """Each layer has cores that hold it; all of them must have one at once."""
    assert speck._assigned({"a": [0, 1], "b": [0], "c": [1, 2]})
    assert not speck._assigned({"a": [0, 1], "b": [0], "c": [1], "d": [0, 1]})


def test_speck_s_memory_is_addressed_in_powers_of_two() -> None:
    """As the maker's page counts a convolution of 16 to 32 channels, 3x3, on 64x64: 8 Ki of kernels, 128 of neurons."""
    net = stl.capture(
        nn.Sequential(AtEachStep(conv(16, 32)), fires(32, 64, 64)), torch.ones(3, 1, 16, 64, 64), verify=False
    )
    (layer,) = net.program.of(Conv)
    assert speck._words(layer, net.program) == (8 * 1024, 128 * 1024)


class Skipping(nn.Module):
    """A skip connection, two layers without neurons between, a pool of currents and a soft reset."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a = AtEachStep(conv(1, 4)), fires(4, 8, 8)
        self.second, self.b = AtEachStep(conv(4, 4)), fires(4, 8, 8, reset="subtract")
        self.pool, self.third, self.fourth = map(AtEachStep, (nn.AvgPool2d(2), conv(4, 2), conv(2, 2, stride=2)))
        self.c = fires(2, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.a(self.first(x))
        return self.c(self.fourth(self.third(self.pool(spikes + self.b(self.second(spikes))))))


def test_check_tells_every_obstacle_at_once() -> None:
    """The skip does not hide the pool, the two layers, nor the reset."""
    net = stl.capture(Skipping(), torch.ones(3, 2, 1, 8, 8), verify=False)
    told = {(found.node, found.slug) for found in net.check("netx", "loihi1").findings if found.severity == "error"}
    slugs = {slug for _, slug in told}
    assert slugs >= {"skip-connection", "no-neuron", "soft-reset"}
    assert len([node for node, slug in told if slug == "no-neuron"]) == 2


def test_thresholds_that_no_fold_takes_are_not_sent_to_one() -> None:
    """One threshold per pixel behind shared kernels: folding keeps them, so the advice to fold came again."""
    net = stl.SpikingGraph(conv_net(np.random.default_rng(0), "pixel"))
    with pytest.warns(UserWarning, match="node 'lif1' keeps its thresholds: 144 thresholds, one per pixel"):
        folded = net.fold(thresholds="weights")
    for asked_of in (net, folded):
        slugs = {"snntorch": "threshold-nonuniform", "speck": "one-threshold-a-core"}
        for target, slug in slugs.items():
            findings = [finding for finding in asked_of.check(target).findings if finding.slug == slug]
            assert {finding.remedy for finding in findings if finding.node == "lif1"} == {
                "train one per layer, as no weights can take these"
            }
