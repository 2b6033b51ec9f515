"""Products, rearranged values and dense layers over tokens in C: random graphs against the integer model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.verilog.lower import make_plan as verilog_plan
from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    GatherNode,
    IntegerGraph,
    IntegerInput,
    IntegerLIF,
    IntegerOutput,
    ProductNode,
)
from stl_deploy.integers.net import INT16, WIDE
from stl_deploy.integers.simulate import simulate, values_of
from stl_deploy.integers.store import About, read_integers, write_integers
from tests.drawn import examples
from tests.exporters.c.graphs import Grower
from tests.exporters.c.test_graphs import NARROW, SANITIZED, differing, fits, program

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())


class Attention(Grower):
    """Tokens ``[N, C]`` or images ``[C, H, W]``: projections to spikes, split into heads, multiplied, mixed, added."""

    def grow(self) -> tuple[IntegerGraph, Any]:
        shape = self.pick((5, 8), (3, 4), (4, 2, 3), (8, 2, 2))
        high = self.pick(1, 1, 7, 300)
        self.adapts = self.chance(0.3)
        self.nodes.append(IntegerInput(name="in", shape=shape, operands=(), low=0, high=high, scale=1.0))
        before = self.nodes[0]
        for _ in range(self.pick(1, 1, 2)):
            before = self.attend(before)
        self.nodes.append(IntegerOutput(name="out", shape=before.shape, operands=(Operand(before.name),), unit=1.0))
        steps, samples = self.pick(1, 4), self.pick(1, 3)
        x = self.whole(0, high, (steps, samples, *shape)) * (self.rng.random((steps, samples, *shape)) < 0.5)
        return IntegerGraph(tuple(self.nodes), self.pick(WIDE, WIDE, INT16)), x.astype(np.int32)

    def made(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def attend(self, before: Node) -> Node:
        q, k, v = (self.heads(self.project(before)) for _ in range(3))
        scores = self.product(q, self.turned(k), matrices=True)
        if self.chance(0.3):
            scores = self.made(DelayNode(**self.common("late", scores.shape, scores), steps=self.whole(0, 2)))
        mixed = self.product(scores, v, matrices=True)
        if self.chance(0.4):
            mixed = self.product(mixed, self.product(q, v, matrices=False), matrices=False)
        if self.chance(0.3):
            gate = self.gathered(v, np.arange(v.shape[-1]).reshape(1, 1, -1))
            mixed = self.product(gate, mixed, matrices=False)
        gain = self.made(GainNode(**self.common("scaled", mixed.shape, mixed), weight=self.whole(1, 3)))
        spikes = self.spikes(gain)
        order = np.moveaxis(np.arange(np.prod(spikes.shape)).reshape(spikes.shape), 0, 1)
        together = self.gathered(spikes, order)
        shape = before.shape if len(before.shape) == 2 else (before.shape[1] * before.shape[2], before.shape[0])
        tokens = self.made(Reshape(**self.common("tokens", shape, together), input_shape=together.shape))
        if len(before.shape) == 3:
            image = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), 1, 0).reshape(before.shape)
            tokens = self.gathered(tokens, image)
        out = self.project(tokens)
        both = (Operand(out.name), Operand(before.name, self.pick(0, 0, 1)))
        name = self.name("shortcut")
        return self.made(Reshape(name=name, shape=out.shape, operands=both, input_shape=out.shape))

    def common(self, kind: str, shape: Any, *before: Node) -> dict[str, Any]:
        return {"name": self.name(kind), "shape": shape, "operands": tuple(Operand(each.name) for each in before)}

    def project(self, before: Node) -> Node:
        channels = before.shape[0] if len(before.shape) == 3 else before.shape[1]
        top, bias = self.pick(3, 40, 127), self.whole(-9, 9, channels) if self.chance(0.4) else None
        if len(before.shape) == 2:
            weight = self.whole(-top, top, (channels, channels))
            layer: Node = DenseNode(**self.common("dense", before.shape, before), weight=weight, bias=bias)
        else:
            layer = ConvNode(
                **self.common("conv", before.shape, before),
                weight=self.whole(-top, top, (channels, channels, 1, 1)),
                bias=bias,
                stride=(1, 1),
                padding=((0, 0), (0, 0)),
                dilation=(1, 1),
                groups=1,
                input_shape=before.shape,
            )
        return self.spikes(self.made(layer))

    def spikes(self, before: Node) -> Node:
        bias = self.whole(-5, 30, self.sizes(before.shape)) if self.chance(0.6) else None
        return self.made(
            IntegerLIF(**self.common("lif", before.shape, before), neuron=self.neuron(before.shape), bias=bias)
        )

    def heads(self, spikes: Node) -> Node:
        """Two heads of tokens ``[2, N, C/2]``."""
        at = np.arange(np.prod(spikes.shape))
        tokens = at.reshape(spikes.shape) if len(spikes.shape) == 2 else at.reshape(spikes.shape[0], -1).T
        return self.gathered(spikes, tokens.reshape(len(tokens), 2, -1).transpose(1, 0, 2))

    def turned(self, node: Node) -> Node:
        at = np.arange(np.prod(node.shape)).reshape(node.shape).swapaxes(-1, -2)
        return self.gathered(node, np.where(self.rng.random(at.shape) < self.pick(0, 0, 0.2), -1, at))

    def gathered(self, node: Node, indices: Any) -> Node:
        return self.made(
            GatherNode(
                **self.common("order", indices.shape, node), indices=indices.astype(np.int32), input_shape=node.shape
            )
        )

    def product(self, one: Node, other: Node, *, matrices: bool) -> Node:
        shapes = (one.shape, other.shape)
        shape = np.matmul(*map(np.zeros, shapes)).shape if matrices else np.broadcast_shapes(*shapes)
        return self.made(
            ProductNode(**self.common("product", shape, one, other), operand_shapes=shapes, matrices=matrices)
        )


@needs_compiler
@pytest.mark.hypothesis
def test_every_value_is_the_integer_models_under_sanitizers() -> None:
    fired, kinds = list[float](), set()

    @examples(25, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        graph, x = Attention(seed).grow()
        assume(fits(graph))
        kinds.update(type(node).__name__ for node in graph.nodes)
        fired.extend(float(s.mean()) for s in simulate(graph, x, record=True).spikes.values())
        assert differing(graph, x, (*SANITIZED, *NARROW[seed % 2 :])) == 0

    check()
    assert np.mean([0 < rate < 1 for rate in fired]) > 0.3
    assert kinds >= {"ProductNode", "GatherNode", "DenseNode", "ConvNode", "DelayNode"}


def small() -> IntegerGraph:
    """``[2, 3]`` tokens times their transpose, whose first row is left out."""
    turned = GatherNode(
        name="turned",
        shape=(3, 2),
        operands=(Operand("in"),),
        indices=np.array([[-1, -1], [1, 4], [2, 5]], np.int32),
        input_shape=(2, 3),
    )
    product = ProductNode(
        name="product",
        shape=(2, 2),
        operands=(Operand("in"), Operand("turned")),
        operand_shapes=((2, 3), (3, 2)),
    )
    return IntegerGraph(
        (
            IntegerInput(name="in", shape=(2, 3), operands=(), low=-2, high=4, scale=1.0),
            turned,
            product,
            IntegerOutput(name="out", shape=(2, 2), operands=(Operand("product"),), unit=1.0),
        ),
        WIDE,
    )


@needs_compiler
def test_a_product_worked_out_by_hand() -> None:
    """[1 2 3; 0 -1 4] · [0 0; 2 -1; 3 4] = [13 10; 10 17]."""
    x = np.array([[1, 2, 3], [0, -1, 4]], np.int32).reshape(1, 1, 2, 3)
    assert simulate(small(), x).y.tolist() == [[[[13, 10], [10, 17]]]]
    assert program(small()).run(x, options=SANITIZED).y.tolist() == [[[[13, 10], [10, 17]]]]


def test_a_product_stays_within_its_bounds_or_is_refused() -> None:
    graph = small()
    wide = IntegerGraph(
        tuple(
            IntegerInput(name="in", shape=(2, 3), operands=(), low=0, high=4000, scale=1.0) if n.name == "in" else n
            for n in graph.nodes
        ),
        WIDE,
    )
    with pytest.raises(UnsupportedError, match="its sums may reach 48,000,000"):
        values_of(wide, np.ones((1, 1, 2, 3), np.int32), ["out"])


def test_the_engine_of_fpgas_refuses_products_by_node() -> None:
    with pytest.raises(UnsupportedError, match="multiplies no signals"):
        verilog_plan(small())


def test_stored_products_come_back_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path, x = tmp_path / "integers.npz", np.array([[1, 2, 3], [0, -1, 4]], np.int32).reshape(1, 1, 2, 3)
    write_integers(small(), About(), path)
    read, _ = read_integers(path)
    np.testing.assert_array_equal(simulate(read, x).y, simulate(small(), x).y)
    with np.load(path) as arrays:
        kept = dict(arrays)
    text, damaged = kept["structure"].tobytes(), tmp_path / "damaged.npz"
    for old, new in (
        (b'"matrices": true', b'"matrices": 1   '),
        (b'"operand_shapes": [[2, 3], [3, 2]]', b'"operand_shapes": [[2, 3], [2, 3]]'),
        (b'"operand_shapes": [[2, 3], [3, 2]]', b'"operand_shapes": [[2, 3], "3, 2" ]'),
    ):
        assert old in text
        np.savez(damaged, **(kept | {"structure": np.frombuffer(text.replace(old, new), np.uint8)}))
        with pytest.raises(InputError, match=r"damaged\.npz"):
            read_integers(damaged)
    indices = next(key for key in kept if key.endswith("indices"))
    np.savez(damaged, **(kept | {indices: kept[indices] + 1}))
    with pytest.raises(InputError, match="indices of 'turned' does not fit"):
        read_integers(damaged)
