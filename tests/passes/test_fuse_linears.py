"""Linear layers in a row become one."""

from __future__ import annotations

import numpy as np

from stl_deploy.graph.program import Input, Linear, Node, Operand, Output, Program
from stl_deploy.passes import fuse_linears


def _linear(name: str, source: str, weight: list[list[float]]) -> Linear:
    made = np.array(weight, np.float32)
    return Linear(
        name=name,
        shape=(len(made),),
        operands=(Operand(source),),
        weight=made,
        bias=None,
        input_shape=(made.shape[1],),
    )


CHAIN: tuple[Node, ...] = (
    _linear("first", "in", [[1, 2], [3, 4]]),
    _linear("second", "first", [[1, 0], [1, 1]]),
    _linear("third", "second", [[0, 1]]),
)


def test_a_chain_becomes_its_product() -> None:
    program = Program(
        (
            Input(name="in", shape=(2,), operands=()),
            *CHAIN,
            Output(name="out", shape=(1,), operands=(Operand("third"),)),
        ),
        1.0,
        {},
    )
    nodes = fuse_linears.PASS.run(program).program.by_name
    layer = nodes["third"]
    assert list(nodes) == ["in", "third", "out"]
    assert isinstance(layer, Linear)
    assert layer.operands == (Operand("in"),)
    np.testing.assert_array_equal(layer.weight, [[4, 6]])  # (1 + 3, 2 + 4)
