"""Files of others are folded and written back into their own graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import ParityError, UnsupportedError
from stl_deploy.exporters.nir import patch
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.lower import METADATA_KEY, lower, own_metadata
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.graph.program import Linear, Neuron, Node, Program
from stl_deploy.passes import FOREIGN, apply
from stl_deploy.pipeline.fold import fold
from tests.drawn import examples
from tests.graph.nets import a, chain, full, graph, iff, lif


def _network(rng: np.random.Generator, scaled: bool, pooled: bool, loop: bool) -> nir.NIRGraph:
    def some(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    def neuron(*shape: int, **fields: float) -> nir.LIF:
        made = lif(shape, **fields)
        made.v_threshold = rng.uniform(0.3, 2, (shape[0], *(1,) * (len(shape) - 1))).astype(np.float32) + full(shape, 0)
        return made

    def pool() -> nir.AvgPool2d:
        return nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))

    conv = nir.Conv2d((8, 8), some(3, 1, 3, 3), 1, 1, 1, 1, some(3))
    layers = [nir.Scale(full((1, 8, 8), 1.7))] * scaled + [conv, neuron(3, 8, 8, tau=3e-4)] + [pool()] * pooled
    size = 3 * (16 if pooled else 64)
    layers += [nir.Flatten({"input": None}, 0, -1), nir.Linear(some(6, size)), neuron(6, v_leak=0.2, v_reset=0.1)]
    layers += [nir.Scale(rng.uniform(0.5, 2, 6).astype(np.float32))] * scaled
    layers += [nir.Affine(some(4, 6), some(4)), neuron(4, tau=5e-4)]
    last = f"n{len(layers) - 1}"
    back: dict[str, Any] = {"back": nir.Linear(some(4, 4))} if loop else {}
    edges = [(last, "back"), ("back", last)] if loop else []
    made = chain([1, 8, 8], *layers, extra=edges, **back)
    made.metadata = {"author": "someone", METADATA_KEY: {"decision": "max"}}
    return made


@examples(25)
@given(
    st.integers(0, 2**16),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from(["spec", "snntorch", "rockpool"]),
    st.fixed_dictionaries(
        {
            "thresholds": st.sampled_from(["keep", "weights"]),
            "exact_grid": st.just(False),
            "input_grid": st.sampled_from([None, 4]),
        }
    ),
)
def test_a_folded_file_is_patched_in_its_own_graph(
    seed: int, parts: tuple[bool, bool, bool], preset: str, options: dict[str, Any]
) -> None:
    """Names, kinds, edges and metadata stay; scales go; what is read back is the folded Program."""
    net, dialect = _network(np.random.default_rng(seed), *parts), PRESETS[preset]
    try:
        folded = fold(lower(net, dialect), FoldOptions(merge_pools=True, **options))
    except UnsupportedError as error:
        event(f"refused: {error.slug}")
        return
    found = to_graph(folded.program)
    assert (folded.restated, found.dialect) == (False, dialect)
    kinds = {name: type(node) for name, node in net.nodes.items()}
    left = {name: type(node) for name, node in found.graph.nodes.items()}
    assert left.items() <= kinds.items() or left.keys() <= kinds.keys()
    assert set(map(tuple, found.graph.edges)) <= set(map(tuple, net.edges)) | _joined(net, kinds.keys() - left.keys())
    assert found.graph.metadata["author"] == "someone"
    assert own_metadata(net).items() <= own_metadata(found.graph).items()
    assert lower(found.graph, found.dialect).digest() == folded.program.digest()


def _joined(net: nir.NIRGraph, gone: set[str]) -> set[tuple[str, str]]:
    """The edges past the nodes that are gone, each of which has one in a chain."""
    after = {source: target for source, target in net.edges if source in gone}
    joined = set()
    for source, target in net.edges:
        while target in gone:
            target = after[target]
        joined.add((source, target))
    return joined


def test_an_untouched_file_is_written_back_as_it_was() -> None:
    net = chain([2], nir.Linear(a([1, 2], [0, 1])), iff((2,)))
    found = to_graph(fold(lower(net, Dialect()), FoldOptions(exact_grid=False)).program)
    assert found.how == "as read"
    assert all(found.graph.nodes[name] is node for name, node in net.nodes.items())
    assert list(found.graph.edges) == list(net.edges)


def _inner() -> nir.NIRGraph:
    inner = graph(
        {
            "input": nir.Input(np.array([2])),
            "s": nir.Scale(a(2, 4)),
            "w": nir.Linear(a([2.0, 4.0], [1.0, 1.0])),
            "n": iff((2,)),
            "output": nir.Output(np.array([2])),
        },
        [("input", "s"), ("s", "w"), ("w", "n"), ("n", "output")],
    )
    return graph(
        {"input": nir.Input(np.array([2])), "block": inner, "output": nir.Output(np.array([2]))},
        [("input", "block"), ("block", "output")],
        {"author": "someone"},
    )


def test_a_graph_that_cannot_hold_the_change_is_restated_and_says_so() -> None:
    """A scale inside a nested graph goes into the weights behind it: the graph is written flat."""
    folded = fold(lower(_inner(), Dialect()), FoldOptions(exact_grid=False))
    found = to_graph(folded.program)
    assert folded.restated
    assert not any(isinstance(node, nir.NIRGraph | nir.Scale) for node in found.graph.nodes.values())
    assert found.graph.nodes["block.w"].weight.tolist() == [[4, 16], [2, 4]]
    assert found.graph.metadata["author"] == "someone"
    assert lower(found.graph, found.dialect).by_name.keys() == found.program.by_name.keys()


def _folded() -> tuple[nir.NIRGraph, Program]:
    net = chain([2], nir.Linear(a([1, 2], [0, 1])), iff((2,), theta=2.0))
    return net, apply(lower(net, Dialect()), FOREIGN, FoldOptions(thresholds="weights")).program


def test_a_patch_that_does_not_hold_what_is_meant_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _, after = _folded()
    assert to_graph(after).how == "patched"
    monkeypatch.setattr(patch, "_weights", lambda held, node: {"weight": node.weight * np.float32(2)})
    restated = to_graph(after)
    assert restated.how == "restated"
    assert restated.graph.nodes["n0"].weight.tolist() == [[0.5, 1], [0, 0.5]]


def test_what_is_written_back_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    _, after = _folded()
    monkeypatch.setattr(patch, "_weights", lambda held, node: {"weight": node.weight * np.float32(2)})
    monkeypatch.setattr(patch, "_is_same_network", lambda read, program: True)
    with pytest.raises(ParityError, match="pass to_graph: neuron"):
        to_graph(after)


def test_a_graph_is_patched_where_a_user_changed_values_and_restated_where_its_nodes_cannot_hold_them() -> None:
    """Time constants of NIR are in seconds of the file's dt: a decay that was changed is written anew."""
    net = chain([2], nir.Linear(a([1, 2], [0, 1])), lif((2,), tau=[0.002, 0.002], theta=2.0))
    net.metadata = {"author": "me"}
    program = lower(net, Dialect(dt=1e-3, leak="exp"))
    linear, neuron = program.by_name["n0"], program.by_name["n1"]
    assert isinstance(linear, Linear)
    assert isinstance(neuron, Neuron)

    def with_node(node: Node) -> Program:
        return replace(program, nodes=tuple(node if one.name == node.name else one for one in program.nodes))

    weights = to_graph(with_node(replace(linear, weight=linear.weight * 2)))
    assert (weights.how, weights.dialect.dt) == ("patched", 1e-3)
    assert weights.graph.nodes["n0"].weight.tolist() == [[2, 4], [0, 2]]
    assert weights.graph.nodes["n1"] is net.nodes["n1"]
    slower = to_graph(with_node(replace(neuron, decay=np.float32(0.875))))
    assert slower.how == "restated"
    (read,) = lower(slower.graph, slower.dialect).of(Neuron)
    assert np.unique(read.decay).tolist() == [0.875]
    assert slower.graph.metadata["author"] == "me"
    lower_theta = to_graph(with_node(replace(neuron, threshold=np.float32(1))))
    assert lower_theta.how == "patched"
    assert np.unique(lower_theta.graph.nodes["n1"].v_threshold).tolist() == [1]


def test_the_dialect_of_a_file_is_of_its_own_nodes_not_what_a_program_came_with() -> None:
    read = lower(chain([2], nir.Linear(a([1, 2], [0, 1])), lif((2,))), Dialect(compare="ge", reset="subtract"))
    program = replace(read, metadata={"dialect": {"compare": "gt", "leak": "exp"}}, origin=None)
    written = to_graph(program)
    assert written.how == "new"
    again = lower(written.graph)
    assert [(node.compare, node.reset) for node in again.of(Neuron)] == [("ge", "subtract")]
    assert again.digest() == written.program.digest()
