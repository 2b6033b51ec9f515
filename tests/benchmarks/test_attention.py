"""The attention benchmark: a network with weights rounded to fewer bits spikes less alike."""

from __future__ import annotations

import torch
from torch import nn

import stl_deploy as stl
from benchmarks.attention import BITS, STEPS, Spikformer, differing
from stl_deploy.graph.program import Product


def test_fewer_bits_of_weights_make_more_spikes_differ() -> None:
    torch.manual_seed(0)
    model = Spikformer()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(norm.weight, 2.0)
            nn.init.constant_(norm.bias, 0.5)
    x = torch.rand(4, 1, 14, 14)
    for _ in range(5):
        model(x)
    net = stl.capture(model.eval(), x, time="inside")
    assert len(list(net.program.of(Product))) == 4
    shares = dict(differing(net.program, x.expand(STEPS, *x.shape).numpy()))
    assert tuple(shares) == BITS
    assert shares[6] > shares[8] > shares[12] > shares[16]
