"""Unroll a recorded run to nodes of single time steps: a tensor with time becomes one node per step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import Op, Value
from stl_deploy.tracing.recording.source_lines import Place, in_module
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Layout, Sizes, axis_of, shape_of, without_time
from stl_deploy.tracing.unrolling.nodes import Node, Nodes, replace_nodes


@dataclass(frozen=True, eq=False)
class Flow:
    """A value: a node for each time step and a layout with time in it, or one node and a layout without."""

    nodes: tuple[Node, ...]
    layout: Layout

    @property
    def timed(self) -> bool:
        """Whether it carries time."""
        return axis_of(self.layout, TIME) is not None

    @property
    def constant(self) -> bool:
        """Whether it does not depend on the input."""
        return all(node.constant for node in self.nodes)

    @property
    def tensor(self) -> Tensor:
        """The value of a constant without time."""
        return self.nodes[0].value


class Unroller:
    """Read a recorded run operation by operation; ``steps`` time steps, ``batch`` samples."""

    def __init__(self, steps: int, batch: int) -> None:
        self.steps, self.batch = steps, batch
        self.inputs: list[tuple[Value, Layout, int | None]] = []
        self.arrivals: set[tuple[Place, str]] = set()
        """Lines and operations of layers at which input arrives in some step."""
        self.reduced: set[Place] = set()
        """Lines at which something is subtracted from a state: from a constant at first, then from a signal."""
        self.begin()

    def begin(self) -> None:
        """Forget all but the inputs."""
        self.nodes = Nodes()
        self.waiting: set[tuple[Place, str]] = set()
        """Those of `arrivals` that read constants before."""
        self.repeats: set[tuple[Place, str]] = set()
        """Those that repeat what another line made in an earlier step."""
        self.flows: dict[Value, Flow] = {}
        self.nothing: set[Value] = set()
        """Values that are 0 because they are a value less itself."""
        self.contents: dict[Node, Any] = {}
        """Contents of nodes, in terms of those of which they move values."""
        for value, layout, step in self.inputs:
            numbers = list(range(self.steps)) if axis_of(layout, TIME) is not None else [step]
            bare = without_time(layout)
            made = tuple(self.nodes.make(Node("input", None, (t,), {}, bare, value.dtype)) for t in numbers)
            self.flows[value] = Flow(made, layout)

    def sizes(self, *flows: Flow) -> Sizes:
        """Return the numbers of steps and samples in these flows."""
        lengths = {len(flow.nodes) for flow in flows if flow.timed}
        return {TIME: lengths.pop() if len(lengths) == 1 else self.steps, BATCH: self.batch}

    def flow(self, value: Value) -> Flow:
        """Return a value's flow; a value from before the run is a constant."""
        if value not in self.flows:
            if not value.constant:
                assert value.op is not None
                raise refuse(
                    f"output {value.index + 1} of '{value.op.name}' has no form in a spiking graph; return what "
                    f"'{value.op.name}' reads, [T, B, ...] at every step, and apply it to that",
                    value.op,
                )
            self.flows[value] = self.constant(value.tensor())
        return self.flows[value]

    def constant(self, tensor: Tensor) -> Flow:
        """Return a tensor that does not depend on the input."""
        node = self.nodes.constant(tensor)
        return Flow((node,), node.layout)

    def input(self, value: Value, layout: Layout, step: int | None = None) -> None:
        """Declare an input: of every step (time is in its layout), of one ``step``, or the same at all (None)."""
        self.inputs.append((value, layout, step))

    def keep(self, flow: Flow, kept: Tensor) -> None:
        """Remember a value's recorded content."""
        for node, part in zip(flow.nodes, split_time(kept, flow.layout, self.sizes(flow)), strict=True):
            node.kept = part

    def untimed(
        self,
        name: str,
        call: Any,
        args: Any,
        kwargs: Any,
        layout: Layout,
        dtype: torch.dtype,
        place: Place,
        **more: Any,
    ) -> Node:
        """Return a node of one step; of constants a constant."""
        node = Node(name, call, args, kwargs, layout, dtype, place, **more)
        inputs = node.inputs
        if (call is None and name != "expand") or not inputs or not all(node.constant for node in inputs):
            return self.nodes.make(node)
        values, options = replace_nodes((args, kwargs), lambda node: node.tensor)
        return self.nodes.constant(node.run(values, options, {**self.sizes(), BATCH: 1}))

    def each(self, op: Op, name: str, flow: Flow, layout: Layout, *more: Any, dtype: torch.dtype | None = None) -> Flow:
        """Apply an ATen operation to each step's value: ``name(value, *more)``. layout, dtype: of the result."""
        call, step = getattr(torch.ops.aten, name), without_time(layout)
        made = (self.untimed(name, call, (node, *more), {}, step, dtype or node.dtype, op.place) for node in flow.nodes)
        return Flow(tuple(made), layout)

    def reshaped(self, node: Node, layout: Layout, place: Place) -> Node:
        """Return ``node`` with other dimensions of the same factors; undone if they were its own before."""
        base = node.args[0] if node.name == "reshape" else node
        if base.layout == layout:
            return base
        if node.tensor is not None:
            shape = shape_of(layout, self.sizes())
            if prod(shape) != node.tensor.numel():  # the same for every sample, it is held once
                shape = shape_of(layout, {**self.sizes(), BATCH: 1})
            return self.nodes.constant(node.tensor.reshape(shape))
        return self.untimed("reshape", None, (base,), {}, layout, node.dtype, place)


def split_time(tensor: Tensor, layout: Layout, sizes: Sizes) -> tuple[Tensor, ...]:
    """Return the steps of a tensor; one if the layout has no time."""
    axis = axis_of(layout, TIME)
    if axis is None:
        return (tensor,)
    dim = layout[axis]
    at = dim.index(TIME)
    factors = [f if isinstance(f, int) else sizes[f] for f in dim]
    spread = tensor.reshape(*tensor.shape[:axis], *factors, *tensor.shape[axis + 1 :])
    # [T·B, C] = [4·3, 5] becomes four of [3, 5], and [T, C] = [4, 5] four of [5]
    beside = [tensor.shape[axis] // factors[at]] if len(dim) > 1 else []
    shape = (*tensor.shape[:axis], *beside, *tensor.shape[axis + 1 :])
    return tuple(part.reshape(shape) for part in spread.unbind(axis + at))


FEW_STEPS = "few-steps"
"""Slug of refusals that more steps may take away: the model remembers more than x has."""


def refuse(message: str, op: Op, *, slug: str | None = None) -> CaptureError:
    """Return a refusal that names the operation's line and module."""
    return CaptureError(message + in_module(op.place), line=op.place.line, slug=slug)
