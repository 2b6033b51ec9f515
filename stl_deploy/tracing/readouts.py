"""What a model does with its output over time at its end, and the output of every step that goes into that."""

from __future__ import annotations

import math
from typing import NamedTuple

from stl_deploy.errors import CaptureError
from stl_deploy.graph.readout import OverTime, Readout
from stl_deploy.tracing.layout import BATCH, TIME, axis_of
from stl_deploy.tracing.nodes import Node, Nodes
from stl_deploy.tracing.unroll import Flow

_OVER_TIME: dict[str, OverTime] = {"time_mean": "mean", "time_sum": "sum", "time_max": "max"}


class Ending(NamedTuple):
    """The output's node at each step, and what the model makes of them. axis: where time is in the model's output."""

    nodes: tuple[Node, ...]
    readout: Readout
    axis: int | None


def ending(flow: Flow, nodes: Nodes, steps: int) -> Ending:
    """How a model ends. Raises CaptureError where what it does after the last time step has no form."""
    axis = axis_of(flow.layout, TIME)
    if axis is not None:
        if flow.layout[axis] != (TIME,) or len(flow.nodes) != steps:
            raise CaptureError(
                f"the output has {len(flow.nodes)} time steps, mixed with other axes; return [T, B, ...] with "
                f"T = {steps}"
            )
        return Ending(flow.nodes, Readout(), axis)
    node = flow.nodes[0]
    if node.constant:
        raise CaptureError("the output does not depend on the input (is it computed outside of torch, by numpy?)")
    node, population = _votes(node)
    found = _over_time(node, steps)
    if found is None:
        return Ending(_siblings(node, nodes, steps), Readout("last", population), None)
    rule, each = found
    if population == 1:
        inner = [_votes(one) for one in each]
        if len({size for _, size in inner}) > 1:
            raise CaptureError("the votes of different steps differ", line=node.place.line)
    return Ending(each, Readout(rule, population), None)


def _votes(node: Node) -> tuple[Node, int]:
    """A mean over the last axis of ``[B, classes, population]``, taken after time is gone."""
    if node.name != "mean" or len(node.args) < 2:
        return node, 1
    inner, dims, _ = node.args
    if (
        not isinstance(inner, Node)
        or inner.name != "reshape"
        or dims != [len(inner.layout) - 1]
        or len(inner.layout) != 3
    ):
        return node, 1
    (size,) = inner.layout[-1] or (1,)
    source = inner.args[0]
    return (source, int(size)) if _over_time(source, 0) is not None or source.name.startswith("time_") else (node, 1)


def _over_time(node: Node, steps: int) -> tuple[OverTime, tuple[Node, ...]] | None:
    if node.name in _OVER_TIME:
        return _OVER_TIME[node.name], tuple(node.args)
    scaled = _scaled(node)
    if scaled is not None:
        inner, factor = scaled
        found = _over_time(inner, steps)
        if found is not None and found[0] == "sum" and math.isclose(factor * len(found[1]), 1, rel_tol=1e-6):
            return "mean", found[1]
        if found is not None:
            raise CaptureError(
                "the output is scaled after the sum over time; take the mean, or scale inside the loop",
                line=node.place.line,
            )
    summed = _accumulated(node, steps)
    return None if summed is None else ("sum", summed)


def _scaled(node: Node) -> tuple[Node, float] | None:
    if node.name not in ("mul", "div") or not isinstance(node.args[0], Node) or node.args[0].constant:
        return None
    by = node.args[1]
    if isinstance(by, Node):
        if by.tensor is None or by.tensor.numel() != 1:
            return None
        by = float(by.tensor)
    if not isinstance(by, int | float) or by == 0:
        return None
    return node.args[0], float(by) if node.name == "mul" else 1 / float(by)


def _accumulated(node: Node, steps: int) -> tuple[Node, ...] | None:
    """The terms of a sum that the loop adds up, one for each step; None if it is none."""
    terms: list[Node] = []
    line = node.place.line
    while node.name == "add" and len(node.args) == 2 and not node.kwargs and node.place.line == line:
        left, right = node.args
        if isinstance(left, Node) and not isinstance(right, Node) and right == 0:
            terms.append(left)  # ``0 + first``
            break
        if not isinstance(left, Node) or not isinstance(right, Node):
            return None
        terms.append(right)
        node = left
    else:
        if not node.constant:
            terms.append(node)
    if len(terms) < 2:
        return None
    if node.constant and node.tensor is not None and bool(node.tensor.any()):
        return None
    return tuple(reversed(terms)) if len(terms) == steps else None


def _siblings(last: Node, nodes: Nodes, steps: int) -> tuple[Node, ...]:
    """The same value at every step, where only the last step's is put out."""
    found = [n for n in nodes.alike(last) if n.number <= last.number]
    if len(found) < steps or BATCH not in last.layout[0]:
        raise CaptureError(
            f"'{last.name}' after the last time step has no form in a graph; return what it reads, [T, B, "
            "...], and apply it "
            "to that",
            line=last.place.line,
        )
    return tuple(found[-steps:])


__all__ = ["Ending", "ending"]
