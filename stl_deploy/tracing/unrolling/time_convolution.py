"""Trace causal convolutions over time, and products with a banded matrix: delays, as one operation on all steps.

Output t of a kernel of K taps reads inputs t - (K - 1)·dilation to t, so one step is a weighted sum of delayed inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stl_deploy.tracing.recording.operations import Op
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Layout, shape_of, without_time
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.unroll import Flow, Unroller, refuse

NAME = "convolution_over_time"
BAND = "matrix_over_time"


def over_time(unroller: Unroller, op: Op, flow: Flow, layout: Layout, axis: int) -> Flow:
    """A convolution whose kernel spans several steps. layout: of its output, with time at ``axis``."""
    weight, bias = (None if value is None else unroller.flow(value).nodes[0] for value in op.args[1:3])
    stride, padding, dilation = (list(sizes) for sizes in op.args[3:6])
    at = axis - 2
    if stride[at] != 1 or op.args[6]:
        kind = "a transposed one" if op.args[6] else f"stride {stride[at]}"
        raise refuse(f"expected a convolution over time with stride 1; found {kind}; a graph puts out every step", op)
    step = tuple(dim for dim in layout if dim != (TIME,))
    zeros = (_zero(unroller, flow),) * padding[at]
    nodes = (*zeros, *flow.nodes, *zeros)
    padding[at] = 0
    span = (op.args[1].shape[axis] - 1) * dilation[at]
    if nodes[-1].constant and len(nodes) - span == unroller.steps:
        before = (0, 0) * (len(layout) - 1 - axis) + (span, 0)
        raise refuse(
            "a convolution over time reads steps after its own, which a graph cannot; put (kernel - 1)·dilation zeros "
            f"in front of x and none behind: F.pad(x, {before})",
            op,
        )
    made = []
    for t in range(len(nodes) - span):
        window = nodes[t : t + span + 1 : dilation[at]]
        args = (window, weight, bias, tuple(stride), tuple(padding), tuple(dilation), op.args[8], axis)
        node = Node(NAME, convolved, args, {}, step, op.outputs[0].dtype, op.place, folded=(TIME,), axis=axis)
        made.append(unroller.nodes.make(node, (op, t)))
    return Flow(tuple(made), layout)


def _zero(unroller: Unroller, flow: Flow) -> Node:
    shape = shape_of(flow.nodes[0].layout, {BATCH: 1})
    return unroller.nodes.constant(torch.zeros(shape, dtype=flow.nodes[0].dtype))


def convolved(
    window: tuple[Tensor, ...],
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    *rest: int,
) -> Tensor:
    """One step from the inputs that the kernel's taps read."""
    groups, axis = rest
    once = [1 if i == axis - 2 else size for i, size in enumerate(dilation)]
    outputs = convolved_steps(window, weight, bias, stride, padding, once, groups, axis)
    return outputs.squeeze(axis)


def convolved_steps(
    steps: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, *rest: int
) -> Tensor:
    """All steps at once, as the model computes them."""
    groups, axis = rest
    x = torch.stack(torch.broadcast_tensors(*steps), axis)  # type: ignore[no-untyped-call]
    zeros = [0] * len(stride)
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, zeros, groups)


def banded(unroller: Unroller, op: Op, flow: Flow, matrix: Tensor, bias: Tensor | None) -> Flow:
    """The product of a matrix ``[T, T]`` and all steps, whose rows have the same weights for the steps up to their own.

    Raises CaptureError for another matrix.
    """
    steps = len(flow.nodes)
    taps = matrix[-1].flip(0)
    taps = taps[: int(taps.nonzero().max()) + 1] if bool(taps.any()) else taps[:1]
    once = bias is None or (bias.shape[1:] in ((), (1,)) and bool((bias == bias.reshape(-1)[0]).all()))
    if not once or op.kwargs or not torch.equal(matrix, _band(taps, steps)):
        raise refuse(
            f"'{op.name}' multiplies all steps by a matrix whose rows differ, or that reads later steps; a graph has "
            "one step that repeats: give each row the same weights for the steps up to its own, as in a sliding PSN",
            op,
        )
    weights = unroller.nodes.constant(taps.contiguous())
    start = unroller.nodes.constant(torch.zeros(()) if bias is None else bias.reshape(-1)[0])
    series = (*(_zero(unroller, flow),) * (len(taps) - 1), *flow.nodes)
    step, made = without_time(flow.layout), []
    for t in range(steps):
        window = series[t : t + len(taps)]
        node = Node(BAND, _row, (window, weights, start), {}, step, op.outputs[0].dtype, op.place, folded=(TIME,))
        made.append(unroller.nodes.make(node, (op, t)))
    return Flow(tuple(made), flow.layout)


def _band(taps: Tensor, steps: int) -> Tensor:
    """Return the matrix of so many steps whose diagonals are taps, the last step's first."""
    lags = torch.arange(steps)[:, None] - torch.arange(steps)
    band: Tensor = torch.where((lags >= 0) & (lags < len(taps)), taps[lags.clamp(0, len(taps) - 1)], 0)
    return band


def _row(window: tuple[Tensor, ...], taps: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, taps.flip(0)[None], torch.stack(torch.broadcast_tensors(*window)))[0]  # type: ignore[no-untyped-call]


def multiplied_steps(steps: tuple[Tensor, ...], taps: Tensor, bias: Tensor) -> Tensor:
    """All steps at once, as the model computes them; the first ones are those before step 0, which are zeros."""
    x = torch.stack(torch.broadcast_tensors(*steps))[len(taps) - 1 :]  # type: ignore[no-untyped-call]
    return torch.addmm(bias, _band(taps, len(x)), x)


AT_ONCE: dict[str, Callable[..., Tensor]] = {NAME: convolved_steps, BAND: multiplied_steps}
"""Functions that compute all steps of these operations at once."""
