"""The module that a graph was captured from, and its graph's layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.caller import warn_caller
from stl_deploy._util.units import counted
from stl_deploy.config.options import Time
from stl_deploy.errors import CaptureError, GraphError
from stl_deploy.graph.axis_order import swapped
from stl_deploy.graph.program import Linear, Program, Shape
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.passes.base import Rewritten
from stl_deploy.passes.permutations import arrange
from stl_deploy.tracing.initial_norms import drawn_statistics
from stl_deploy.tracing.proof.input_types import own_types
from stl_deploy.tracing.proof.layers_and_ends import Proof
from stl_deploy.tracing.proof.module_values import module_spikes, module_values
from stl_deploy.tracing.recording.packed_inputs import Packed
from stl_deploy.tracing.recording.remedies import in_code
from stl_deploy.tracing.recording.running import run as run_module
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.several_inputs import given_each, graph_input
from stl_deploy.tracing.trace import Traced, steps_of, trace
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import NOWHERE

Fold = Callable[[Program], Rewritten]
"""Folds the layers of a captured module."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A captured module. original: its module; sample: x as the graph's input; name: its class's."""

    program: Program
    proof: Proof | None
    readout: Readout
    original: Any
    sample: NetworkInput
    name: str


class Captured:
    """The module that a graph was captured from."""

    def __init__(self, model: nn.Module, traced: Traced, folded: Rewritten, few: Tensor, fold: Fold) -> None:
        self.model, self.traced, self.folded, self.few, self.dtype = model, traced, folded, few, few.dtype
        self._fold = fold
        self.takes: Shape = tuple(few.shape[1 if traced.call.time == "inside" else 2 :])

    @property
    def time(self) -> Time:
        """Position of time in the module."""
        return self.traced.call.time

    @property
    def makes(self) -> Shape | None:
        """Shape of one step's output of one sample in the module's form; None where samples are not its first axis."""
        layout = self.traced.steps.output.signal.node.layout
        return shape_of(layout[1:], {}) if layout and layout[0] == (BATCH,) else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of several inputs, in the order of forward's arguments; empty for those of one dict, without order."""
        several = self.model if isinstance(self.model, Packed) and self.model.how != "mapping" else None
        return () if several is None else tuple(part.name for part in several.parts)

    def as_graph_input(self, batch: Any) -> Any:
        """A batch as the module's forward takes it, as the graph's input ``[T, B, *shape]``, or a dict of several."""
        steps = steps_of(self.traced.call, as_floats(batch), self.traced.length)
        return graph_input(self.model, self.folded, torch.stack(steps).float().numpy())

    def given_each(self, x: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Several inputs as the module takes them, as the graph's own, ``[T, B, *shape]`` by name."""
        if not isinstance(self.model, Packed):
            return dict(x)
        return given_each(self.model.parts, x, self.time, self.traced.length, self.folded.places)

    def given_step(self, x: NetworkInput) -> NetworkInput:
        """One step of the module's input, ``[B, *shape]``, or of several by name, as the graph's."""
        if not isinstance(x, Mapping):
            arranged: NDArray[Any] = self.arranged(x[None])[0]
            return arranged
        steps: Mapping[str, NDArray[Any]] = {name: array[None] for name, array in x.items()}
        if isinstance(self.model, Packed):
            steps = given_each(self.model.parts, steps, "first", 1, self.folded.places)
        return {name: array[0] for name, array in steps.items()}

    def given(self, x: NDArray[Any], *, asks: bool = True) -> NDArray[Any]:
        """Input as the module takes it, or its steps in the graph's order of axes, as the graph's ``[T, B, *shape]``.

        asks: warn of steps that seem to stand where samples do, unless the module has time inside.
        """
        if self.time == "inside" or x.ndim < 2:
            return self.arranged(x)
        order, other = "[T, B, ...]", "[B, T, ...]"
        if self.time == "second":
            order, other = other, order
        if x.shape[2:] not in (self.takes, self.folded.program.inputs[0].shape):
            sample = ", ".join(map(str, self.takes))
            one = f"; of one sample give {'x[None]' if self.time == 'second' else 'x[:, None]'}"
            raise ShapeError(
                f"x: expected {order.replace('...', sample)}, as the module takes it; found {list(x.shape)}"
                + (one if x.shape[1:] == self.takes else "")
            )
        if self.time == "second":
            x = x.swapaxes(0, 1)
        steps, samples = x.shape[:2]
        if asks and swapped(steps, samples, self.traced.length):
            warn_caller(
                f"x is read as this graph's module takes it (time={self.time!r}), {order}: {counted(steps, 'step')} "
                f"of {counted(samples, 'sample')}; it was captured on {counted(samples, 'step')}: "
                f"if x is {other}, give x.swapaxes(0, 1)"
            )
        return self.arranged(x)

    def arranged(self, x: NDArray[Any]) -> NDArray[Any]:
        """Input ``[T, B, *shape]`` in the module's order of axes, or the graph's, in the graph's.

        Of a module that loops over time itself also ``[B, *shape]``, which is shown at every step.
        """
        given = self.folded.program.inputs[0]
        if self.time == "inside" and x.shape[1:] == self.takes:
            x = np.broadcast_to(x, (self.traced.length, *x.shape))
        return arrange(x, self.folded.places.get(given.name)) if x.shape[2:] == self.takes else x

    def as_trained(self, program: Program) -> Program | None:
        """Return the graph with drawn statistics in batch norms that have none; None if all have some.

        A graph that was changed since its capture stays as it is. Raises CaptureError if the module has no form then.
        """
        if program.nodes is not self.folded.program.nodes:
            return None
        with drawn_statistics(self.model) as drawn:
            if not drawn:
                return None
            try:
                return replace(
                    folded_layers(trace(self.model, self.few, self.traced.call), self._fold).program,
                    metadata=program.metadata,
                )
            except CaptureError as error:
                reason = f"once its batch norms have statistics (drawn here), the model has no form: {error.reason}"
                raise CaptureError(reason, line=error.line, layer=error.layer) from None

    def run(self, batch: Any) -> tuple[NDArray[Any], Result]:
        """The module's own scores ``[B, classes]`` of a batch, and its outputs and spikes under the graph's names."""
        require_on_cpu(self.model)
        traced = self.traced
        x = as_floats(batch).to(self.dtype)
        values = module_values(traced, x)
        spikes, y = module_spikes(traced, values, self.folded.places)
        own = run_module(self.model, x, traced.call)
        if traced.axis is not None:
            own = own.sum(traced.axis)
        shape = self.folded.program.outputs[0].shape
        return own.float().numpy(), Result({"output": y.reshape(*y.shape[:2], *shape)}, spikes)


def as_floats(x: Any) -> Tensor:
    """Return input as floats on the CPU."""
    tensor = own_types(x)
    return tensor if tensor.is_floating_point() else tensor.float()


def require_on_cpu(model: nn.Module) -> None:
    """Raise CaptureError for weights on a GPU: own kernels there, as Triton's, are not seen."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type not in ("cpu", "meta"):
            raise CaptureError(
                f"parameter '{name}' is on {tensor.device}; capture runs a model on the CPU: give model.cpu()"
            )


def folded_layers(traced: Traced, fold: Fold) -> Rewritten:
    """Fold the layers; a refusal names the layer's line in the user's code."""
    try:
        return fold(traced.graph)
    except (CaptureError, GraphError) as error:
        layer = error.node if isinstance(error, GraphError) else error.layer
        where = traced.places.get(layer or "")
        if isinstance(error, CaptureError) and (where is None or error.line is not None):
            raise
        reason = in_code(error, traced.graph) if isinstance(error, GraphError) else error.reason
        line = None if where is None else where.line
        raise CaptureError(reason + in_module(where or NOWHERE), line=line, layer=layer) from None


def inflated(before: Program, after: Program, matrices: Collection[str]) -> dict[str, float]:
    """Return how many times the MACs each layer has that folding made a matrix, and each of ``matrices``.

    Zeros of the matrix are where the layer that it stands for has no weight.
    """
    grown: dict[str, float] = {}
    for node in after.of(Linear):
        layer = before.by_name.get(node.name)
        kept = isinstance(layer, Linear) and layer.weight.size >= node.weight.size and node.name not in matrices
        times = node.weight.size / max(1, int(np.count_nonzero(node.weight)))
        if not kept and times > 1:
            grown[node.name] = round(times, 1)
    return grown
