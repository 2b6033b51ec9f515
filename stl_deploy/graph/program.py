"""The Program: a network in discrete time, the one representation that every target reads.

A Program is an ordered tuple of frozen dataclasses with resolved shapes and numpy arrays. NIR nodes and dialects end in
`lower`. Shapes are of one sample at one time step; arrays with time are ``[T, B, *shape]``. `Norm`, `MaxPool`,
`Concat` and `Gather` have no NIR node: passes remove nodes that a target's Format does not list in ``takes``. During
passes, weights and biases may be float64.

**Node input.** ``x`` is the sum of the sources, added left to right in float32; a `Concat` keeps its sources apart. A
source with ``delay`` d carries the value of d steps ago (0 before that).

**Neuron step.** Each line is one float32 operation per element, in this order on every backend. Lines whose field is
None are left out::

    i  = syn.decay·i + syn.gain·x          synapse rule "euler"
    i  = (i + syn.gain·x)·syn.decay        synapse rule "exp_add"
    d  = gain·i                            (i is x without a synapse)
    v  = decay·v + d                       (v = d if decay is None: memoryless)
    v  = v + offset
    v  = v − θ·s[t−1]                      reset "subtract_delayed"
    v  = v − θ·r, r = v[t−1] > θ           reset "snntorch_subtract_now"
    v  = v_reset where s[t−1] > 0          reset "value_delayed": input of that step is lost
    v  = max(v, v_min)
    a  = ρ·a + jump·s[t−1]                 adaptation: compare with θₐ = θ + a instead of θ
    s  = v > θ, v >= θ, or min(max(q(v/θ), 0), cap), q(u) = trunc(u), floor(u + ½), or u rounded, halves to even
    v  = v_reset where s > 0 / v − θ·s     reset "value" / "subtract"
    v  = v − θ·(s − r)                     reset "snntorch_subtract_now"

The output is ``s``, or ``v`` without a threshold. Every sample starts at ``v_start``, ``i_start`` and the adaptation's
``start`` (0 if None), s = 0.
With reset "none" a spike changes nothing. With adaptation a spike subtracts θ or θₐ (`Adaptation`).
"snntorch_subtract_now" is snnTorch with ``reset_delay=False``: while more than θ is left of v, a neuron fires again
only above 2·θ.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy.errors import GraphError

Shape = tuple[int, ...]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
N = TypeVar("N", bound="Node")
Compare = Literal["gt", "ge"]
Combine = Literal["add", "each", "flat"]
Rounding = Literal["down", "half_up", "half_even"]
"""Rounding of v/θ to a number of spikes, for neurons that fire several: down (toward zero), or to the nearest."""
Subtracts = Literal["baseline", "adapted"]
SynapseRule = Literal["euler", "jump", "exp_add"]
"""As dialects name it; a Program states the gain of ``jump``, which is then ``euler``."""
Reset = Literal["value", "subtract", "subtract_delayed", "value_delayed", "none", "snntorch_subtract_now"]
"""Effect of a spike on the potential (see the module's equations)."""
CAPTURED = "captured"
"""The key of a graph's metadata that says where the module it was captured from has time, and of how many steps."""
MATRICES = "matrices"
"""The key in it of layers that are matrices in place of other operations, and how many times the MACs each has."""
DT = 1e-4
"""The time step of the Programs that we make: what snnTorch assumes, and close to every reader's default."""
DELAYED_RESETS = ("subtract_delayed", "value_delayed")
"""Those that act on the next step's potential, so that the spike must be remembered."""


@dataclass(frozen=True)
class Operand:
    """One incoming edge: the node it comes from and the delay in whole steps (1 on an edge that closes a loop)."""

    node: str
    delay: int = 0


Source = Operand
"""Its name of version 0.3, removed in 0.5."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """Common fields: the NIR node's name, the shape of its output, and its incoming edges.

    combine: ``add``: its input is the sum of its sources; ``each``: their concatenation on the first axis; ``flat``:
    it takes each of them by itself, and they arrive flattened, one after another.
    """

    combine: ClassVar[Combine] = "add"
    name: str
    shape: Shape
    operands: tuple[Operand, ...]

    @property
    def sources(self) -> tuple[Operand, ...]:
        """The operands, under their name of version 0.3; removed in 0.5."""
        return self.operands

    @property
    def fires(self) -> bool | NDArray[np.bool_]:
        """Whether its output, or each value of it, is spikes, counts or amplitudes of them by structure."""
        return False

    @property
    def ternary(self) -> bool | NDArray[np.bool_]:
        """Whether its output, or each value of it, is -1, 0 or 1 by structure."""
        return self.binary

    @property
    def binary(self) -> bool | NDArray[np.bool_]:
        """Whether its output, or each value of it, is 0 or 1 by structure."""
        return False


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Node):
    """Input of samples; has no sources."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Output(Node):
    """Output of results; passes its input through."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Node):
    """y = W·x + b on the last axis. weight ``[out, in]``, bias ``[out]`` or None."""

    weight: Floats
    bias: Floats | None
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Node):
    """Cross-correlation over 1 or 2 spatial axes, as in torch.

    weight ``[C_out, C_in/groups, *kernel]``, bias ``[C_out]`` or None;
    padding holds (before, after) for each spatial axis.
    """

    weight: Floats
    bias: Floats | None
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    groups: int
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Node):
    """y = scale·x, elementwise; scale broadcasts to the shape."""

    scale: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Node):
    """Sum over a window of 2 spatial axes, divided by ``divisor`` (1: sum pooling; window size: average).

    Padding is zeros and counts in the average, as in torch's default.
    """

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    divisor: int
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Node):
    """Same values, another shape (NIR Flatten)."""

    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Delay(Node):
    """Each element arrives ``steps`` steps later; steps is int64 and broadcasts to the shape."""

    steps: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Norm(Node):
    """y = scale·(x − mean) + shift for each channel, in float64, rounded once: batch norm in evaluation.

    scale, mean, shift: ``[C]`` in float64 (mean None: 0); axis: that of the channels, 0 or -1.
    """

    scale: Doubles
    shift: Doubles
    mean: Doubles | None = None
    axis: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """The largest value of each window of 1 or 2 spatial axes; padding never is."""

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """Its sources concatenated on the first axis, ``sizes[i]`` of source i."""

    combine: ClassVar[Combine] = "each"
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Node):
    """Rearranged input: ``indices`` has the shape of the output and holds flat places, -1 for 0."""

    indices: NDArray[np.int64]
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Node):
    """Two signals multiplied: as matrices, y = a·b on the last two axes, or element by element (spiking attention).

    operand_shapes: the shapes of both. matrices: whether as matrices, ``[..., n, k]`` times ``[..., k, m]``.
    """

    combine: ClassVar[Combine] = "flat"
    operand_shapes: tuple[Shape, Shape]
    matrices: bool = True


@dataclass(frozen=True, eq=False)
class Synapse:
    """The current filter of CubaLI and CubaLIF (see the module's equations)."""

    rule: Literal["euler", "exp_add"]
    decay: Floats
    gain: Floats | None


@dataclass(frozen=True, eq=False)
class Adaptation:
    """A threshold that rises with each spike and decays back to its baseline (see the module's equations).

    decay: ρ, from 0 to below 1. jump: what a spike of one step adds to the threshold of the next. subtracts: what a
    reset by subtraction takes off v: the baseline θ, or θ + a, the threshold as it is. start: a before the first step,
    which multiplies it by ρ (None: 0).
    """

    decay: Floats
    jump: Floats
    subtracts: Subtracts = "baseline"
    start: Floats | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron(Node):
    """A population of neurons; the module's docstring has the equations.

    Every array is float32 and broadcasts to ``shape``; a uniform one is 0-dimensional.
    threshold None: no spikes, the output is v. decay None: memoryless (NIR Threshold). offset: what the
    drive gains at every step, input or not (NIR's v_leak). multi_spike: several spikes in one step, at most ``cap``
    (None: as many as v holds thresholds), their number rounded by ``rounding``. adaptation: of the threshold, not with
    multi_spike.
    """

    decay: Floats | None
    threshold: Floats | None
    gain: Floats | None = None
    offset: Floats | None = None
    v_reset: Floats | None = None
    v_min: Floats | None = None
    v_start: Floats | None = None
    i_start: Floats | None = None
    synapse: Synapse | None = None
    compare: Compare = "gt"
    reset: Reset = "value"
    multi_spike: bool = False
    cap: int | None = None
    rounding: Rounding = "down"
    adaptation: Adaptation | None = None

    @property
    def spiking(self) -> bool:
        """Whether the output is spikes rather than a potential."""
        return self.threshold is not None

    @property
    def fires(self) -> bool:
        """See `Node`."""
        return self.spiking

    @property
    def binary(self) -> bool:
        """See `Node`."""
        return self.spiking and not self.multi_spike

    @property
    def delayed_reset(self) -> bool:
        """Whether a spike acts on the next step's potential."""
        return self.spiking and self.reset in DELAYED_RESETS


@dataclass(frozen=True, eq=False)
class Origin:
    """Source of a Program: the graph as its Format holds it, its dialect, and the nodes read from it."""

    graph: Any
    dialect: Any
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Nodes in an order in which every undelayed source comes before its reader.

    ``metadata`` is what the graph's author wrote beside it (input coding, grids, versions). ``origin``: the graph that
    it was read from, which a writer patches instead of writing the nodes anew; None for one that was built.

    Raises GraphError for another order.
    """

    nodes: tuple[Node, ...]
    dt: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None

    def __post_init__(self) -> None:
        before = set[str]()
        for node in self.nodes:
            for source in node.operands:
                if not source.delay and source.node not in before and source.node in self.by_name:
                    reason = f"reads '{source.node}' of the same step, which does not stand before it"
                    raise GraphError(reason, node=node.name, slug="order")
            before.add(node.name)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each node under its name."""
        return {node.name: node for node in self.nodes}

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The Input nodes."""
        return tuple(self.of(Input))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The Output nodes."""
        return tuple(self.of(Output))

    @property
    def spiking(self) -> tuple[Neuron, ...]:
        """The spiking neurons, in order."""
        return tuple(node for node in self.of(Neuron) if node.spiking)

    @property
    def compared(self) -> tuple[Node, ...]:
        """The nodes at which runs are compared: those that put out spikes or counts of them, in order."""
        return tuple(node for node in self.nodes if _is_all(self, node, "fires"))

    def samples_within(self, values: int, steps: int) -> int:
        """Return how many samples of ``steps`` steps have at most ``values`` spikes and silences, at least one."""
        return max(1, values // max(1, steps * sum(math.prod(node.shape) for node in self.compared)))

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """For each node's name, the nodes that read its output."""
        by_source: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(source.node for source in node.operands):
                by_source[name].append(node)
        return {name: tuple(nodes) for name, nodes in by_source.items()}

    def digest(self) -> str:
        """SHA-256 of the nodes, their arrays and dt: identifies an export's source without a file."""
        digest = hashlib.sha256(repr(self.dt).encode())
        for node in self.nodes:
            _add(digest, node)
        return digest.hexdigest()

    def of(self, kind: type[N]) -> Iterator[N]:
        """Return the nodes of one kind, in order."""
        return (node for node in self.nodes if isinstance(node, kind))


def _add(digest: hashlib._Hash, value: Any) -> None:
    """Hash a node's field: dataclasses by field, arrays by type, shape and bytes, others by repr."""
    if is_dataclass(value):
        digest.update(type(value).__name__.encode())
        for field in fields(value):
            if field.compare:
                _add(digest, getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            _add(digest, part)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    else:
        digest.update(repr(value).encode() + b";")


InputCoding = Literal["spikes", "graded", "analog"]
"""Kind of input values: 0/1 events, integers carried by events, or real numbers."""


def is_spike_max_pool(program: Program, node: Node) -> bool:
    """Return whether ``node`` is a Threshold that, with the sum pool before it, is max pooling of spikes.

    True for a memoryless neuron with a uniform threshold in [0, 1) (compare ``gt``) or
    (0, 1] (``ge``), reading only a sum pool of binary spikes.
    """
    if not isinstance(node, Neuron) or node.threshold is None or node.threshold.ndim or len(node.operands) != 1:
        return False
    acts = (node.decay, node.synapse, node.gain, node.offset, node.adaptation)
    if node.multi_spike or node.delayed_reset or any(field is not None for field in acts):
        return False
    theta = float(node.threshold)
    fires_at_one = 0 <= theta < 1 if node.compare == "gt" else 0 < theta <= 1
    pool = program.by_name[node.operands[0].node]
    if not fires_at_one or not isinstance(pool, Pool) or pool.divisor != 1 or len(pool.operands) != 1:
        return False
    return is_binary(program, pool.operands[0].node)


_THROUGH: tuple[type[Node], ...] = (Reshape, Delay, Output, MaxPool, Gather)
"""Nodes that put out no value but those that they get, or 0."""


def is_binary(program: Program, name: str, what: Literal["binary", "ternary"] = "binary") -> bool:
    """Return whether a node's output is 0 or 1 by the graph's structure alone (an input is not).

    what: ``ternary`` for -1, 0 or 1.
    """

    def before(at: str) -> list[str]:
        node = program.by_name[at]
        if _is_all(program, node, what):
            return []
        moves = isinstance(node, Concat) or (isinstance(node, _THROUGH) and len(node.operands) == 1)
        return [source.node for source in node.operands] if moves else []

    ends = (program.by_name[at] for at in reachable([name], before) if not before(at))
    return all(_is_all(program, node, what) for node in ends)


def _is_all(program: Program, node: Node, what: Literal["fires", "binary", "ternary"]) -> bool:
    """Return whether all values are so: of a node, or of those that a Gather picks of one that puts out others, too."""
    values = getattr(node, what)
    if isinstance(node, Gather) and len(node.operands) == 1:
        mixed = getattr(program.by_name[node.operands[0].node], what)
        if isinstance(mixed, np.ndarray) and not mixed.all():
            values = mixed[node.indices[node.indices >= 0]]
    return bool(np.all(values))


def passes_on(node: Node) -> bool:
    """Return whether the node only moves its inputs in place or time."""
    return isinstance(node, Reshape | Delay | MaxPool | Gather | Concat)


def feeders(program: Program, node: Node) -> set[str]:
    """Return the nodes whose outputs make up ``node``'s input, looking through `passes_on` nodes."""

    def before(name: str) -> list[str]:
        made = program.by_name[name]
        return [source.node for source in made.operands] if passes_on(made) else []

    starts = (source.node for source in node.operands)
    return {name for name in reachable(starts, before) if not passes_on(program.by_name[name])}


def origin_of(program: Program, node: Node, through: tuple[type[Node], ...] = _THROUGH) -> Node | None:
    """Return the node whose values reach ``node`` unchanged through ``through`` nodes; None if several are summed."""
    seen: set[str] = set()
    while len(node.operands) == 1 and node.name not in seen:
        seen.add(node.name)
        node = program.by_name[node.operands[0].node]
        if not isinstance(node, through):
            return node
    return None
