"""`capture`: turn any torch module into a `SpikingGraph` that is proved to spike like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from stl_deploy._util.caller import warn_caller
from stl_deploy._util.keywords import right_keywords
from stl_deploy._util.remedies import require_one_of
from stl_deploy._util.working import working
from stl_deploy.config.options import Start
from stl_deploy.pipeline.fold import fold_layers
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.tracing import Call, Time
from stl_deploy.tracing.capture import captured


@right_keywords({"batch_first": "time", "input": "x", "inputs": "x", "target": "output"})
def capture(
    model: nn.Module,
    x: Any,
    *,
    time: Time = "first",
    reset: Callable[[], Any] | None = None,
    output: int | str | None = None,
    start: Start = "drawn",
    verify: bool = True,
    progress: bool | None = None,
) -> SpikingGraph:
    """Trace one time step of ``model`` into a graph and prove it on ``x``.

    Args:
        model: Any torch module on the CPU. It runs in eval mode; its mode, state and gradients are restored.
        x: A real batch, in the form that ``time`` names. For a forward of several inputs: a tuple of such batches, or
            a dict by argument or key; the graph then has an input for each, and its verbs take either. Numbers, text
            and None among them, ``(x, num_steps)``, are passed on in every call.
        time: ``first``: forward takes ``[T, B, *shape]``; ``second``: ``[B, T, *shape]``; ``step``: x is
            ``[T, B, *shape]`` and forward takes one step ``[B, *shape]`` at a time, keeping its state; ``inside``:
            forward takes ``[B, *shape]`` and loops over time itself; ``none``: forward takes ``[B, *shape]`` and has
            no time, as an ANN (found where forward fails on ``[T, B, *shape]`` and nothing spikes).
        reset: Callable that brings the model to rest, if it has no method ``reset``.
        output: Output to use if there are several (index or name; default: the first tensor).
        start: ``zeros``: states that forward draws (``torch.rand``) start from zeros in the graph and in its proof.
        verify: False skips the proof.
        progress: False disables the progress line, which otherwise appears after a few seconds (outside a terminal:
            every ten seconds).

    Raises:
        CaptureError: If the module cannot be expressed as a graph, with the line of the user's file; or if the graph
            does not spike like the module, with layer, step and neuron.

    Examples:
        >>> net = stl_deploy.capture(model, x)
        >>> print(net.proof)
        >>> net.export("net.onnx")
    """
    require_one_of(start, Start, "start")
    call = Call(time, reset, output, drawn=None if start == "drawn" else 0.0)
    with working(f"capturing {type(model).__name__}", progress):
        made = captured(model, x, call, fold_layers, verify=verify)
    for warning in made.proof.warnings if made.proof is not None else ():
        warn_caller(warning)
    return SpikingGraph(
        made.program,
        proof=made.proof,
        readout=made.readout,
        original=made.original,
        sample=made.sample,
        name=made.name,
    )
