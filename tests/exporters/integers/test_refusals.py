"""What integers cannot hold, refused by node; and scales that are merged into weights, or stay, before them."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from stl_deploy.exporters.integers.branches import refusals
from stl_deploy.fold.merge_scales import merge_scales
from stl_deploy.graph.dialect import Dialect
from stl_deploy.graph.lower import lower
from stl_deploy.graph.run import run
from tests.graph.nets import bare, chain, full, graph, lif


def linear(outputs: int = 3, inputs: int = 3) -> nir.Linear:
    return nir.Linear(np.eye(outputs, inputs, dtype=np.float32))


def scale(values: object) -> nir.Scale:
    return nir.Scale(np.asarray(values, np.float32))


def conv(bias: float = 0.0) -> nir.Conv2d:
    weight = np.ones((2, 2, 1, 1), np.float32)
    return nir.Conv2d((4, 4), weight, stride=1, padding=0, dilation=1, groups=1, bias=full((2,), bias))


def integrator() -> nir.LI:
    return bare(nir.LI, tau=full((3,), 2e-4), r=full((3,), 1.0), v_leak=full((3,), 0.0))


def two_outputs() -> nir.NIRGraph:
    ends = {"o1": nir.Output(np.array([3])), "o2": nir.Output(np.array([3]))}
    nodes = {"input": nir.Input(np.array([3])), "w": linear(), "a": lif((3,)), **ends}
    return graph(nodes, [("input", "w"), ("w", "a"), ("a", "o1"), ("a", "o2")])


PIXELS = np.arange(1.0, 33.0).reshape(2, 4, 4)
HALF = full((3,), 0.5)
REFUSED = {
    "several-ends": (two_outputs(), "o1"),
    "no-neurons": (chain((3,), linear()), "input"),
    "no-neuron": (chain((3,), linear(), linear(), lif((3,))), "n1"),
    "potential": (chain((3,), linear(), lif((3,)), linear(), integrator(), linear(), lif((3,))), "n4"),
    "mixed-scales": (
        chain((3,), linear(), lif((3,)), scale(0.5), linear(), lif((3,)), extra=[("n1", "n3")]),
        "n3",
    ),
    "decay": (chain((3,), linear(), lif((3,), tau=5e-5)), "n1"),
    "several-ways": (
        chain((3,), linear(), lif((3,)), linear(), scale(HALF), lif((3,)), extra=[("n2", "n4")]),
        "n2",
    ),
    "scale-per-pixel": (chain((2, 4, 4), conv(), lif((2, 4, 4)), conv(), scale(PIXELS), lif((2, 4, 4))), "n3"),
}


@pytest.mark.parametrize("slug", REFUSED)
def test_what_integers_cannot_hold_is_refused_by_its_node(slug: str) -> None:
    network, node = REFUSED[slug]
    assert [(found.node, found.slug) for found in refusals(lower(network))] == [(node, slug)]


@pytest.mark.parametrize(
    ("network", "merged"),
    [
        (chain((3,), linear(), scale([2.0, 3.0, 4.0]), lif((3,))), True),
        (chain((2, 4, 4), conv(0.5), scale(np.full((2, 1, 1), 3.0)), lif((2, 4, 4))), True),
        (chain((2, 4, 4), conv(0.5), scale(PIXELS), lif((2, 4, 4))), False),
        (chain((3,), scale([2.0, 3.0, 4.0]), linear(), lif((3,))), False),
        (chain((3,), linear(), scale([2.0, 3.0, 4.0]), lif((3,)), extra=[("n0", "n2")]), False),
    ],
)
def test_a_scale_goes_into_weights_of_its_own_and_nothing_changes(network: nir.NIRGraph, merged: bool) -> None:
    before = lower(network)
    after = lower(merge_scales(network, Dialect()))
    assert (len(before.nodes) - len(after.nodes)) == merged
    x = np.random.default_rng(0).integers(0, 3, (5, 4, *before.inputs[0].shape)).astype(np.float32)
    for name, values in run(before, x).outputs.items():
        np.testing.assert_array_equal(run(after, x).outputs[name], values)
