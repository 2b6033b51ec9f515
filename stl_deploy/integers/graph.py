"""A network in integers: the nodes of a Program, with integers in place of floats.

Values are integers: spikes, sums of spikes, input multiplied by its scale, synaptic sums. A node's input is the
sum of its sources; a source with delay 1 carries the step before (0 at first). Shapes are a Program's, torch's order.
A reshape is a Program's own; the nodes here hold integers, and two axes of space where a Program may have one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from stl_deploy.graph.program import Node, Shape
from stl_deploy.integers.net import DECAY_ONE, WIDE, Accumulator, IntegerNeuron, Ints, Pair

Padding = tuple[Pair, Pair]
"""(before, after) for height and width."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerInput(Node):
    """Input of integers from low to high: real input times ``scale``."""

    low: int
    high: int
    scale: float


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseNode(Node):
    """weight ``[out, in]``, bias ``[out]`` or None, on the last axis.

    delay, shift, enlarged: as `stl_deploy.integers.net.Dense` has them.
    """

    weight: Ints
    bias: Ints | None
    delay: Ints | None = None
    shift: int = 0
    enlarged: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvNode(Node):
    """weight ``[C_out, C_in/groups, kh, kw]``, bias ``[C_out]`` or None, input ``(C, H, W)``.

    A convolution over one axis has a height of 1 here; ``shape`` and what its sources hold are without it.
    """

    weight: Ints
    bias: Ints | None
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class GainNode(Node):
    """Each value times its weight, which broadcasts to the shape."""

    weight: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class SumPoolNode(Node):
    """Sums over windows of ``(C, H, W)``; a division is moved into the weights after it."""

    kernel: Pair
    stride: Pair
    padding: Padding
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPoolNode(Node):
    """The largest value of each window of ``(C, H, W)``; padding never is.

    Over one axis the height is 1 here; ``shape`` and what its sources hold are without it.
    """

    kernel: Pair
    stride: Pair
    padding: Padding
    input_shape: Shape


MOST_DELAY = 10_000
"""Steps by which a node delays at most."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DelayNode(Node):
    """Each value some steps later, up to `MOST_DELAY`; steps broadcasts to the shape."""

    steps: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherNode(Node):
    """Rearranged values: ``indices`` has the output's shape and holds flat places of the input, -1 for 0."""

    indices: Ints
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class ProductNode(Node):
    """Its two operands multiplied, as matrices on the last two axes or element by element, as `ir.Product` does."""

    combine: ClassVar[Literal["add", "each"]] = "each"
    operand_shapes: tuple[Shape, Shape]
    matrices: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLIF(Node):
    """Neurons that spike. bias is added to v in each step and broadcasts to the shape."""

    neuron: IntegerNeuron
    bias: Ints | None


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLI(Node):
    """Neurons without threshold: the value is v, in 64ths. ``u`` and ``v`` start and decay as an `IntegerNeuron`'s."""

    v_decay: int | Ints
    bias: Ints | None
    i_decay: int | Ints = DECAY_ONE
    v_start: Ints | None = None
    u_start: Ints | None = None

    @property
    def neuron(self) -> IntegerNeuron:
        """Return a neuron with these states; its threshold is not read."""
        return IntegerNeuron(
            v_decay=self.v_decay,
            threshold=np.zeros((), np.int32),
            i_decay=self.i_decay,
            v_start=self.v_start,
            u_start=self.u_start,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerOutput(Node):
    """Output of integers; each stands for ``unit`` times itself."""

    unit: float


Weighted = DenseNode | ConvNode | GainNode


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """Nodes in an order in which every undelayed source comes before its reader; one input, one output.

    accumulator: the widths of u and v that the integers were chosen for.
    """

    nodes: tuple[Node, ...]
    accumulator: Accumulator = WIDE
    by_name: dict[str, Node] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {node.name: node for node in self.nodes})

    @property
    def input(self) -> IntegerInput:
        """The input node."""
        return next(node for node in self.nodes if isinstance(node, IntegerInput))

    @property
    def output(self) -> IntegerOutput:
        """The output node."""
        return next(node for node in self.nodes if isinstance(node, IntegerOutput))

    @property
    def populations(self) -> tuple[IntegerLIF, ...]:
        """The spiking nodes, in order."""
        return tuple(node for node in self.nodes if isinstance(node, IntegerLIF))

    @cached_property
    def readers(self) -> dict[str, int]:
        """Return the number of edges that leave each node."""
        return Counter(source.node for node in self.nodes for source in node.operands)

    @cached_property
    def delayed(self) -> frozenset[str]:
        """Return the names of the nodes with a delayed reader."""
        return frozenset(source.node for node in self.nodes for source in node.operands if source.delay)
