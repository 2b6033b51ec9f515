"""What integers cannot hold, refused by node; and scales that are merged into weights, or stay, before them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.integer_runner import IntegerRunner
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import Options
from stl_deploy.graph.program import Operand
from stl_deploy.graph.run import run
from stl_deploy.integers import fan_in
from stl_deploy.integers.fan_in import refusals
from stl_deploy.passes import fold_scales
from tests.exporters.netx.programs import Builder
from tests.fold.passed import passed
from tests.graph.nets import bare, chain, full, graph, lif


def linear(outputs: int = 3, inputs: int = 3) -> nir.Linear:
    return nir.Linear(np.eye(outputs, inputs, dtype=np.float32))


def scale(values: object) -> nir.Scale:
    return nir.Scale(np.asarray(values, np.float32))


def conv(bias: float = 0.0) -> nir.Conv2d:
    weight = np.ones((2, 2, 1, 1), np.float32)
    return nir.Conv2d((4, 4), weight, stride=1, padding=0, dilation=1, groups=1, bias=full((2,), bias))


def flatten(shape: tuple[int, ...], start: int = 0) -> nir.Flatten:
    return nir.Flatten({"input": np.array(shape)}, start, -1)


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
    "mixed-scales, no weights": (
        chain((3,), linear(), lif((3,)), scale(0.5), scale(0.5), linear(), lif((3,)), extra=[("n1", "n3")]),
        "n3",
    ),
    "long-delay": (chain((3,), bare(nir.Delay, delay=full((3,), 2.0)), linear(), lif((3,))), "n0"),
    "reshape-before-neuron": (chain((2, 4, 4), conv(), flatten((2, 4, 4)), lif((32,))), "n1"),
}


@pytest.mark.parametrize("slug", REFUSED)
def test_what_integers_cannot_hold_is_refused_by_its_node(slug: str) -> None:
    network, node = REFUSED[slug]
    assert [(found.node, found.slug) for found in refusals(lower(network))] == [(node, slug.split(",")[0])]


@pytest.mark.parametrize("slug", REFUSED)
def test_quantising_refuses_what_check_found(slug: str) -> None:
    """Before anything is chosen, also where two ways from one layer differ, which appears only at the neuron."""
    network, node = REFUSED[slug]
    with pytest.raises(UnsupportedError) as error:
        fan_in.values(lower(network), 1.0)
    assert (error.value.node, error.value.slug) == (node, slug.split(",")[0])


@pytest.mark.parametrize(("source", "slug"), [(Operand("fc2", 1), "loop"), (Operand("lif", 2), "long-edge")])
def test_edges_that_no_lowering_makes_are_refused(source: Operand, slug: str) -> None:
    """A loop without neurons, which would never be ordered, and two steps on an edge, which would count as one."""
    build = Builder((3,)).linear("fc", np.eye(3)).lif("lif", 1.0).reshape("fc2", (3,)).linear("fc3", np.eye(3))
    nodes = build.lif("end", 1.0).program().nodes
    changed = tuple(replace(node, operands=(source,)) if node.name == "fc2" else node for node in nodes)
    assert [(found.node, found.slug) for found in refusals(replace(lower(two_outputs()), nodes=changed))] == [
        ("fc2", slug)
    ]


@pytest.mark.parametrize(("reset", "refused"), [("none", True), ("value", False), ("subtract", False)])
def test_a_neuron_without_reset_is_refused_in_the_words_of_code(reset: Any, refused: bool) -> None:
    program = Builder((3,)).linear("fc", np.eye(3)).lif("lif", 1.0).program()
    nodes = tuple(replace(node, reset=reset) if node.name == "lif" else node for node in program.nodes)
    remedies = [found.remedy for found in refusals(replace(program, nodes=nodes)) if found.slug == "reset"]
    words = (
        "reset it to a value, v = v * (1 - s), or by subtraction, v = v - s * theta, or export to onnx, or to c with"
    )
    assert remedies == [f"{words} numbers='float32'"] * refused


def test_a_layer_that_arrives_twice_alike_is_weighted_once() -> None:
    """Pooled once, flattened twice: its sums arrive twice, as in the reference."""
    members = {"input": nir.Input(np.array([2, 4, 4])), "c": conv(), "a": lif((2, 4, 4)), "w": conv()}
    members["p"] = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    members |= {"f1": flatten((2, 2, 2), 1), "f2": flatten((2, 2, 2), 1), "b": lif((2, 4), theta=3.0)}
    members["output"] = nir.Output(np.array([2, 4]))
    edges = ["input c", "c a", "a w", "w p", "p f1", "p f2", "f1 b", "f2 b", "b output"]
    agrees(graph(members, [tuple(edge.split()) for edge in edges]))


def test_potentials_are_read_out_through_a_reshape() -> None:
    potentials = bare(nir.LI, **{name: full((2, 4, 4), 1e-4 if name == "tau" else 1.0) for name in ("tau", "r")})
    potentials.v_leak = full((2, 4, 4), 0.0)
    agrees(chain((2, 4, 4), conv(), lif((2, 4, 4), tau=2e-4), conv(), potentials, flatten((2, 4, 4))))


def agrees(network: nir.NIRGraph) -> None:
    program = lower(network)
    x = np.random.default_rng(0).integers(0, 2, (5, 3, *program.inputs[0].shape)).astype(np.float32)
    expected = run(program, x).y
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(IntegerRunner(program, Options()).run(x).y, expected)


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
    after = lower(passed(fold_scales.PASS, network, Dialect())[0])
    assert (len(before.nodes) - len(after.nodes)) == merged
    x = np.random.default_rng(0).integers(0, 3, (5, 4, *before.inputs[0].shape)).astype(np.float32)
    for name, values in run(before, x).outputs.items():
        np.testing.assert_array_equal(run(after, x).outputs[name], values)
