"""What check tells of a network with several obstacles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.graph import program as ir
from tests.exporters.netx.programs import conv_net


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
        findings = asked_of.check("snntorch").findings
        assert {
            finding.remedy for finding in findings if (finding.slug, finding.node) == ("threshold-nonuniform", "lif1")
        } == {"train one per layer, as no weights can take these"}


def test_a_loop_of_weights_alone_is_refused_where_it_cannot_be_held() -> None:
    """Xylo's check ended in an AssertionError, and readers were told to take a file that NIR does not allow."""
    identity: dict[str, Any] = {"shape": (2,), "weight": np.eye(2, dtype=np.float32), "bias": None, "input_shape": (2,)}
    half = np.array(0.5, np.float32)
    nodes = (
        ir.Input(name="input", shape=(2,), operands=()),
        ir.Linear(name="sums", operands=(ir.Operand("input"), ir.Operand("sums", 1)), **identity),
        ir.Neuron(name="hidden", shape=(2,), operands=(ir.Operand("sums"),), decay=half, threshold=half),
        ir.Linear(name="weights", operands=(ir.Operand("hidden"),), **identity),
        ir.Neuron(name="last", shape=(2,), operands=(ir.Operand("weights"),), decay=half, threshold=half),
        ir.Output(name="output", shape=(2,), operands=(ir.Operand("last"),)),
    )
    targets = ("nir", "xylo", "snntorch", "norse", "spikingjelly")
    found = stl.SpikingGraph(ir.Program(nodes, 1.0)).check(*targets).findings
    slugs = {each.target: each.slug for each in found if each.node == "sums" and each.severity == "error"}
    assert slugs == {"nir": "not-in-nir"} | dict.fromkeys(targets[1:], "loop-without-neuron")
