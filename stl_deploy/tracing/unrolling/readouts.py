"""Split a model's end into the output of every step and a readout over time."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.graph.readout import OverTime, Readout, Then
from stl_deploy.tracing.recognition.exact_types import require_sum_does_not_wrap
from stl_deploy.tracing.recording.operations import COMPARES
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, axis_of, shape_of
from stl_deploy.tracing.unrolling.nodes import Node, Nodes, replace_nodes
from stl_deploy.tracing.unrolling.steps import no_input, shifts
from stl_deploy.tracing.unrolling.unroll import Flow

_THEN: dict[str, Then] = {"_softmax": "softmax", "_log_softmax": "log_softmax"}
_AFFINE = (
    *("addmm", "mm", "convolution", "_native_batch_norm_legit_no_training", "native_batch_norm", "add", "sub", "rsub"),
    *("mul", "div", "neg", "mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d", "reshape", "expand", "rearranged"),
    "_to_copy",
)
"""Operations f with f(mean of x) = mean of f(x), but for rounding, if all else that they read is constant."""
_ADDED = {
    **dict.fromkeys(("add", "sub", "rsub"), (0, 1)),
    "addmm": (0,),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "native_batch_norm"), (2, 3)),
}
"""Arguments of operations that are added to what they make of x: biases, and the means that norms subtract."""
_OVER_TIME: dict[str, OverTime] = {"time_mean": "mean", "time_sum": "sum", "time_max": "max"}


class Ending(NamedTuple):
    """The output's node at each step, and the model's readout.

    axis: where time is in the model's output. divides: a sum over time is divided by the number of steps of this run.
    """

    nodes: tuple[Node, ...]
    readout: Readout
    axis: int | None
    divides: bool = False


def ending(flow: Flow, nodes: Nodes, steps: int, *, sums: bool = False, fixed: bool = False) -> Ending:
    """Return a model's ending. fixed: it always runs ``steps`` steps; sums: a sum over time stays one, even scaled.

    Raises CaptureError where what it does after the last time step has no form.
    """
    axis = axis_of(flow.layout, TIME)
    if axis is not None:
        if flow.layout[axis] != (TIME,):
            raise CaptureError(
                f"the output has {len(flow.nodes)} time steps, mixed with other axes; return [T, B, ...] with "
                f"T = {steps}"
            )
        bare = [_then(node) for node in flow.nodes]
        each, start = _all_steps(tuple(node for node, _ in bare), nodes, steps)
        return Ending(each, Readout(then=bare[0][1], start=start), axis)
    node, then = _then(flow.nodes[0])
    if node.constant:
        raise no_input(steps)
    node, population = _votes(node, nodes)
    tail: list[Node] = []
    last, bent = node, None
    while (found := _over_time(node, nodes, steps, sums) or _last_of(node, nodes, steps)) is None:
        inner = [node_of_step for node_of_step in node.inputs if not node_of_step.constant]
        if bent is None and node.name not in _AFFINE:
            bent = node
        if len(inner) != 1 or node.name in COMPARES:
            raise _no_form(bent or last, steps)
        tail.append(node)
        node = inner[0]
    rule, taken = found
    first = None
    if rule == "max" and len(taken) == steps + 1 and taken[0].constant:  # outputs = [start], and one of each step
        first, taken = taken[0], taken[1:]
    each, start = _all_steps(taken, nodes, steps)
    normalised = None if tail else _THEN.get(each[0].name)
    if normalised is not None:
        each = tuple(node.args[0] for node in each)
    if bent is not None or first is not None or (tail and rule == "max"):
        if start or (rule == "mean" and not fixed):
            raise _no_form(bent or last)
        return Ending(_so_far(rule, tail, each, nodes, first), Readout("last", population, then), None)
    # W·Σs + b has b once, but a graph that applies W·s + b in each step has it T times.
    if rule == "sum" and _shifts(tail):
        if fixed:
            rule, each = "mean", tuple(_times(term, len(taken), nodes) for term in each)
        elif start or normalised:
            raise _refused(
                last,
                "adds a bias once, after a sum over time of some steps, or of each step's softmax; take the mean in "
                "place of the sum, or leave the bias out",
            )
        else:
            return Ending(_sums_from_bias(tail, each, nodes), Readout("last", population, then), None)
    divides = rule == "mean" and node.name != "time_mean"
    made = tuple(_at_step(tail, term, nodes) for term in each)
    return Ending(made, Readout(rule, population, then, start, normalised), None, divides)


def _all_steps(taken: tuple[Node, ...], nodes: Nodes, steps: int) -> tuple[tuple[Node, ...], int]:
    """Return the outputs of all steps, of which ``taken`` are the last, and the first step that is taken."""
    if len(taken) == steps:
        return taken, 0
    chain = _with_earlier(taken, nodes, steps)
    if chain is None:
        ahead = (
            "a convolution over time padded behind the last step makes more, and reads later steps: pad before x alone"
        )
        raise CaptureError(
            f"expected a model that runs each of {steps} time steps, and puts out all of them, or all from one step "
            f"on; found {len(taken)} outputs; return [T, B, ...], one for each step, and leave steps out afterwards"
            + (f" ({ahead})" if len(taken) > steps else ""),
            line=taken[0].place.line,
        )
    return chain, steps - len(taken)


def _with_earlier(taken: tuple[Node, ...], nodes: Nodes, steps: int) -> tuple[Node, ...] | None:
    """Return the outputs of the last steps and, before them, those of earlier steps, made or left out."""
    chain = _chain(taken[-1], nodes, steps)
    if chain is not None and chain[-len(taken) :] == taken:
        return chain
    inner = tuple(source for node in taken for source in node.inputs if not source.constant)
    if len(inner) != len(taken) or not all(shifts(*pair, {}) for pair in pairwise(reversed(taken))):
        return None
    before = _with_earlier(inner, nodes, steps)
    if before is None:
        return None
    return (*(_at_step([taken[-1]], source, nodes) for source in before[: steps - len(taken)]), *taken)


def _chain(last: Node, nodes: Nodes, steps: int) -> tuple[Node, ...] | None:
    """Return the nodes that make the output of the last step, one a step; None if there are fewer than steps."""
    alike, chain = nodes.alike(last), [last]
    while len(chain) < steps:  # one line may make several layers, in a loop or a function
        before = [n for n in alike if n.number < chain[-1].number]
        sooner = next((n for n in reversed(before) if shifts(chain[-1], n, {})), None)
        if sooner is None:
            return None
        chain.append(sooner)
    return tuple(reversed(chain))


def _then(node: Node) -> tuple[Node, Then | None]:
    """Remove a softmax over the classes at the end."""
    return (node.args[0], _THEN[node.name]) if node.name in _THEN else (node, None)


def _shifts(tail: list[Node]) -> bool:
    """Return whether operations add a constant, of which a sum over time would get one for each step."""
    for node in tail:
        shift = node.made_of(_zeros, {BATCH: 1})
        if not bool(shift.isfinite().all()):
            raise _no_form(node)
        if bool(shift.any()):
            return True
    return False


def _sums_from_bias(tail: list[Node], each: tuple[Node, ...], nodes: Nodes) -> tuple[Node, ...]:
    """Return the sums so far of ``tail`` without biases, from what ``tail`` makes of zeros on: W Σ s + b."""
    bias = _zeros(each[0])
    for node in reversed(tail):
        bias = node.made_of(partial(_tensor_or, bias), {BATCH: 1})
    linear = [_without_bias(node, nodes) for node in tail]
    total, sums = nodes.constant(bias), []
    for term in each:
        made = _at_step(linear, term, nodes)
        add = torch.ops.aten.add.Tensor
        sums.append(nodes.make(replace(made, name="add", call=add, args=(total, made), kwargs={}, pointwise=True)))
        total = sums[-1]
    return tuple(sums)


def _so_far(
    rule: OverTime, tail: list[Node], each: tuple[Node, ...], nodes: Nodes, first: Node | None
) -> tuple[Node, ...]:
    """Return ``tail`` of the readout up to each step, of which the last step's is the model's: tanh(W mean(s))."""
    name, call, none = "add", torch.ops.aten.add.Tensor, _zeros(each[0])
    if rule == "max":
        name, call, none = "maximum", torch.ops.aten.maximum.default, none + torch.finfo(none.dtype).min
    total, made = first or nodes.constant(none), []
    for term in each:
        node = replace(term, name=name, call=call, args=(total, term), kwargs={}, pointwise=True, kept=None)
        total = term if rule == "last" else nodes.make(node)
        made.append(_at_step(tail, _times(total, 1 / len(each), nodes) if rule == "mean" else total, nodes))
    return tuple(made)


def _without_bias(node: Node, nodes: Nodes) -> Node:
    """Return an affine operation without what it adds; raises CaptureError where that is not one of its arguments."""
    if node.name == "addmm" and not node.kwargs:
        return replace(node, name="mm", call=torch.ops.aten.mm.default, args=node.args[1:], kept=None)
    if node.name == "convolution":
        return replace(node, args=(*node.args[:2], None, *node.args[3:]), kept=None)
    added = _ADDED.get(node.name, ())
    args = tuple(_nought(arg, nodes) if at in added else arg for at, arg in enumerate(node.args))
    linear = replace(node, args=args, kept=None)
    if _shifts([linear]):
        raise _no_form(node)
    return linear


def _nought(argument: object, nodes: Nodes) -> object:
    """Return zeros for a constant; all else as it is."""
    if isinstance(argument, Node):
        return argument if argument.tensor is None else nodes.constant(torch.zeros_like(argument.tensor))
    return 0.0 if isinstance(argument, int | float) else argument


def _tensor_or(value: Tensor, node: Node) -> Tensor:
    return value if node.tensor is None else node.tensor


def _times(node: Node, factor: float, nodes: Nodes) -> Node:
    call = torch.ops.aten.mul.Tensor
    made = Node("mul", call, (node, float(factor)), {}, node.layout, node.dtype, node.place, pointwise=True)
    return nodes.make(made)


def _zeros(node: Node) -> Tensor:
    return _tensor_or(torch.zeros(shape_of(node.layout, {BATCH: 1}), dtype=node.dtype), node)


def _or_constant(put: Node, node: Node) -> Node:
    return put if node.tensor is None else node


def _at_step(tail: list[Node], one: Node, nodes: Nodes) -> Node:
    """Apply the operations behind a readout over time to one step's output."""
    for node in reversed(tail):
        args, kwargs = replace_nodes((node.args, dict(node.kwargs)), partial(_or_constant, one))
        one = nodes.make(replace(node, args=args, kwargs=kwargs, kept=None))
    return one


def _votes(node: Node, nodes: Nodes) -> tuple[Node, int]:
    """Recognise a mean over the last axis of ``[B, classes, population]``, taken after time is gone."""
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
    return (
        (source, int(size))
        if _over_time(source, nodes, 0) is not None or source.name.startswith("time_")
        else (node, 1)
    )


def _over_time(node: Node, nodes: Nodes, steps: int, sums: bool = False) -> tuple[OverTime, tuple[Node, ...]] | None:
    if node.name in _OVER_TIME:
        return _OVER_TIME[node.name], tuple(node.args)
    scaled = None if sums else _scaled(node)
    if scaled is not None:
        scaled_sum = _over_time(scaled[0], nodes, steps)
        if scaled_sum is not None and scaled_sum[0] == "sum" and _is_mean_of(node, len(scaled_sum[1])):
            return "mean", scaled_sum[1]
    summed = _accumulated(node, nodes, steps)
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


def _is_mean_of(node: Node, steps: int) -> bool:
    """Return whether a node divides by the number of steps."""
    scaled = _scaled(node)
    return scaled is not None and math.isclose(scaled[1] * steps, 1, rel_tol=1e-6)


def _accumulated(node: Node, nodes: Nodes, steps: int) -> tuple[Node, ...] | None:
    """Return the terms of a sum that the loop adds up, one for each step that counts; None if it is none."""
    terms: list[Node] = []
    line = node.place.line
    while node.name == "add" and len(node.args) == 2 and not node.kwargs and node.place.line == line:
        left, right = node.args
        if isinstance(left, Node) and not isinstance(right, Node) and right == 0:
            terms.append(left)  # ``0 + first``
            break
        if not isinstance(left, Node) or not isinstance(right, Node):
            return None
        require_sum_does_not_wrap(node)
        terms.append(right)
        node = left
    else:
        if not node.constant:
            terms.append(node)
    if len(terms) < 2:
        return None
    if node.constant and node.tensor is not None and bool(node.tensor.any()):
        return None
    summed = tuple(reversed(terms))
    if len(summed) < steps:  # the last steps, or no sum over time
        return summed if _with_earlier(summed, nodes, steps) is not None else None
    return summed if len(summed) == steps else None


def _last_of(last: Node, nodes: Nodes, steps: int) -> tuple[OverTime, tuple[Node, ...]] | None:
    """The same value at every step, where only the last step's is put out."""
    same_line = [n for n in nodes.alike(last) if n.number <= last.number]
    if len(same_line) < steps or not last.layout or BATCH not in last.layout[0]:
        return None
    return "last", _chain(last, nodes, steps) or tuple(same_line[-steps:])


def _no_form(node: Node, steps: int = 0) -> CaptureError:
    if node.name in COMPARES and 0 <= node.latest < steps - 1:
        return _refused(
            node,
            "is the output, of another step than the last (delayed spikes?); return every step, [T, B, ...], and take "
            "the last of those",
        )
    return _refused(
        node,
        "after the last time step has no form in a graph; return every step, [T, B, ...], and do the rest to that",
    )


def _refused(node: Node, reason: str) -> CaptureError:
    return CaptureError(f"'{node.called}'{in_module(node.place)} {reason}", line=node.place.line)
