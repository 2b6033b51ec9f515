"""`capture`: turn any torch module into a `SpikingGraph` that is proved to spike like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from stl_deploy._util.arrays import as_array, require_held_by_float32
from stl_deploy._util.caller import warn_caller
from stl_deploy._util.files import leading
from stl_deploy._util.keywords import right_keywords
from stl_deploy._util.remedies import option, require_one_of
from stl_deploy._util.units import counted
from stl_deploy._util.working import stage, working
from stl_deploy.config.options import Start
from stl_deploy.errors import CaptureError, GraphError
from stl_deploy.graph.compare import rate_warnings
from stl_deploy.graph.program import CAPTURED, MATRICES, Floats, Program, Shape
from stl_deploy.graph.run import NetworkInput, Result, swapped
from stl_deploy.passes.permutations import arrange
from stl_deploy.pipeline.fold import FoldedLayers, fold_layers, inflated
from stl_deploy.pipeline.several_inputs import given_each, graph_input, split_input
from stl_deploy.tracing import Call, Time, Traced, trace, uncompiled
from stl_deploy.tracing.initial_norms import drawn_statistics, initial_norms
from stl_deploy.tracing.proof.cells import prove_cells
from stl_deploy.tracing.proof.input_types import (
    own_types,
    require_floats_taken,
    require_module,
    require_same_in_own_types,
    require_whole,
)
from stl_deploy.tracing.proof.inputs import beyond, permuted, sized, within
from stl_deploy.tracing.proof.layers_and_ends import (
    MAX_COARSE_ROUNDING,
    MAX_ROUNDING,
    ComputesOtherwiseError,
    LayerProof,
    Proof,
    count,
    end_to_end,
    prove_layers,
    prove_values,
)
from stl_deploy.tracing.proof.module_values import module_currents, module_spikes, module_values
from stl_deploy.tracing.proof.other_sizes import ReplayProof
from stl_deploy.tracing.proof.replay import Values
from stl_deploy.tracing.recognition.exact_types import casts_of_input, coarse_types, type_warnings
from stl_deploy.tracing.recording.packed_inputs import Packed, pack
from stl_deploy.tracing.recording.remedies import in_code, version_warnings
from stl_deploy.tracing.recording.repeatable import gradient_warnings, require_repeatable
from stl_deploy.tracing.recording.running import run as run_module
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.time_axis import (
    FAILURES,
    as_asked,
    axis_warnings,
    few_samples,
    not_samples,
    require_memory,
    require_sequence,
)
from stl_deploy.tracing.trace import RECORDED, REPEATED, batch_axis, require_drawn_starts, steps_of
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import NOWHERE
from stl_deploy.tracing.unrolling.steps import FEWEST
from stl_deploy.tracing.without_time import shown_thrice, without_time

if TYPE_CHECKING:
    from stl_deploy.pipeline.spiking_graph import SpikingGraph

_CAUSES = {"random-numbers", "forward-changes"}
"""Slugs of refusals that name the line by which two calls differ."""
Spikes = Mapping[str, Floats]


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
            a dict by argument or key; the graph then has an input for each, and its verbs take either.
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
        captured = _without_time if time == "none" else _captured
        net = captured(uncompiled(model), x, call, verify)
    for warning in net.proof.warnings if net.proof is not None else ():
        warn_caller(warning)
    return net


def _without_time(model: nn.Module, x: Any, call: Call, verify: bool) -> SpikingGraph:
    return without_time(_captured(model, shown_thrice(x), replace(call, time="step", timeless=True), verify), x)


def _captured(model: nn.Module, x: Any, call: Call, verify: bool) -> SpikingGraph:
    model, x = pack(model, x, call.time)
    batch = _batch(model, x, call)
    few = few_samples(batch, call)
    stage("tracing")
    axis = batch_axis(call)
    steps = few.shape[1 - axis]

    def of_steps(count: int) -> SpikingGraph:
        """Trace so many steps of x, which is repeated."""
        part = sized(few, axis, samples=few.shape[axis], steps=count)
        return _proved(model, x, batch, part, replace(trace(model, part, call), length=steps), verify)

    varies = verify and call.time != "inside" and not call.timeless
    repeats = varies and FEWEST <= steps < REPEATED
    if varies and steps > RECORDED:
        with suppress(*FAILURES):  # longer delays, a fixed number of steps: all steps tell, or say why not
            return of_steps(RECORDED)
    try:
        traced = trace(model, few, call)
    except CaptureError as error:
        if repeats and error.slug not in _CAUSES:
            with suppress(*FAILURES):  # the model remembers more steps than x has
                return of_steps(REPEATED)
        if call.time == "first" and error.__cause__ is not None:
            with suppress(CaptureError):
                net = _without_time(model, x, call, verify)
                if not net.program.spiking:
                    return net
        require_floats_taken(error, model, x, batch, call)
        _run_on(batch, model, call)  # where forward fails, it says so of x
        with suppress(CaptureError):
            run_module(model, few, call)
            error.__cause__ = None  # it failed in the record alone
        if error.__cause__ is not None:
            asked = as_asked(error, model, batch, call)
            raise (not_samples(batch, few, call) if asked is error else asked) from error
        if error.slug not in _CAUSES:
            require_repeatable(model, few, permuted(few, 7), call)
        raise as_asked(error, model, batch, call) from error
    try:
        return _proved(model, x, batch, few, traced, verify)
    except ComputesOtherwiseError:
        if repeats and torch.equal(run_module(model, few, call), traced.made):
            with suppress(*FAILURES):
                return of_steps(REPEATED)
        raise
    except CaptureError as error:
        if error.__cause__ is None:
            raise
        raise as_asked(error, model, batch, call) from error  # forward fails on other numbers of samples


def _proved(model: nn.Module, x: Any, batch: Tensor, few: Tensor, traced: Traced, verify: bool) -> SpikingGraph:
    """Return the graph of a traced step, proved on ``batch``. few: what was traced."""
    from stl_deploy.pipeline.spiking_graph import SpikingGraph

    call = traced.call
    operations = traced.recorded * sum(1 + signal.node.elements() // 2**9 for signal in traced.steps.signals)
    axis = batch_axis(call)
    steps = None if call.time == "inside" else few.shape[1 - axis] + 2
    larger = sized(few, axis, samples=few.shape[axis] + 1, steps=steps)
    require_repeatable(model, few, permuted(few, 7), call, traced.made, operations, larger)
    if call.drawn is not None:
        require_drawn_starts(model, few, traced)
    made = require_whole(traced, batch)
    require_same_in_own_types(model, x, batch, few, call)
    if isinstance(model, Packed):
        traced.graph, model.parts = split_input(traced.graph, model.parts)
    stage("folding")
    folded = _fold(traced)
    require_memory(model, few, call, folded.program)
    original = Captured(model, traced, folded, few)
    sample = original.as_graph_input(batch)
    shown: dict[str, Any] = {"time": call.time, "steps": traced.length, "largest": float(batch.abs().max())}
    if made is not None:
        shown["made"] = made
    matrices = inflated(traced.graph, folded.program, traced.matrices)
    if matrices:
        shown[MATRICES] = matrices
    metadata = {**folded.program.metadata, CAPTURED: shown}
    folded = folded._replace(program=replace(folded.program, metadata=metadata))
    stage("proving on x")
    proof = None
    if verify:
        proof = replace(_prove(original, batch), matrices=matrices)
    inner = model._orig_mod if isinstance(model, Packed) else model
    return SpikingGraph(
        folded.program,
        proof=proof,
        readout=traced.readout,
        original=original,
        sample=sample,
        name=type(inner).__name__.lower(),
    )


def _run_on(batch: Tensor, model: nn.Module, call: Call) -> None:
    """Run the module on the whole batch; where it fails, name the axes with which it does not."""
    try:
        run_module(model, batch, call)
    except CaptureError as error:
        raise as_asked(error, model, batch, call) from error.__cause__


class Captured:
    """The module that a graph was captured from."""

    def __init__(self, model: nn.Module, traced: Traced, folded: FoldedLayers, few: Tensor) -> None:
        self.model, self.traced, self.folded, self.few, self.dtype = model, traced, folded, few, few.dtype
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
        steps = steps_of(self.traced.call, _tensor(batch), self.traced.length)
        return graph_input(self.model, self.folded, torch.stack(steps).float().numpy())

    def given_each(self, x: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Several inputs as the module takes them, as the graph's own, ``[T, B, *shape]`` by name."""
        if not isinstance(self.model, Packed):
            return dict(x)
        return given_each(self.model.parts, x, self.time, self.traced.length, self.folded.arranged)

    def given_step(self, x: NetworkInput) -> NetworkInput:
        """One step of the module's input, ``[B, *shape]``, or of several by name, as the graph's."""
        if not isinstance(x, Mapping):
            arranged: NDArray[Any] = self.arranged(x[None])[0]
            return arranged
        steps: Mapping[str, NDArray[Any]] = {name: array[None] for name, array in x.items()}
        if isinstance(self.model, Packed):
            steps = given_each(self.model.parts, steps, "first", 1, self.folded.arranged)
        return {name: array[0] for name, array in steps.items()}

    def given(self, x: NDArray[Any], *, asks: bool = True) -> NDArray[Any]:
        """Input as the module takes it, or its steps in the graph's order of axes, as the graph's ``[T, B, *shape]``.

        asks: warn of steps that seem to stand where samples do, unless the module has time inside.
        """
        if self.time == "inside" or x.ndim < 2:
            return self.arranged(x)
        order, other = "[T, B, ...]", "[B, T, ...]"
        if self.time == "second":
            x, order, other = x.swapaxes(0, 1), other, order
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
        return arrange(x, self.folded.arranged.get(given.name)) if x.shape[2:] == self.takes else x

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
                return replace(_fold(trace(self.model, self.few, self.traced.call)).program, metadata=program.metadata)
            except CaptureError as error:
                reason = f"once its batch norms have statistics (drawn here), the model has no form: {error.reason}"
                raise CaptureError(reason, line=error.line, layer=error.layer) from None

    def run(self, batch: Any) -> tuple[NDArray[Any], Result]:
        """The module's own scores ``[B, classes]`` of a batch, and its outputs and spikes under the graph's names."""
        _require_on_cpu(self.model)
        traced = self.traced
        x = _tensor(batch).to(self.dtype)
        values = module_values(traced, x)
        spikes, y = module_spikes(traced, values, self.folded.arranged)
        own = run_module(self.model, x, traced.call)
        if traced.axis is not None:
            own = own.sum(traced.axis)
        shape = self.folded.program.outputs[0].shape
        return own.float().numpy(), Result({"output": y.reshape(*y.shape[:2], *shape)}, spikes)


def _tensor(x: Any) -> Tensor:
    tensor = own_types(x)
    return tensor if tensor.is_floating_point() else tensor.float()


def _batch(model: nn.Module, x: Any, call: Call) -> Tensor:
    require_module(model)
    tensor = _tensor(x)
    least, shape = 2 if call.time == "inside" else 3, list(tensor.shape)
    if not tensor.numel():
        raise CaptureError(f"x is {shape}, in which there is nothing; give at least one sample, of three steps or more")
    if len(shape) < least - 1:
        raise CaptureError(f"x: expected at least {least} axes with {option('time', call.time)}; found {shape}")
    require_held_by_float32(as_array(own_types(x)), "x")
    if tensor.dtype == torch.float64 and not any(p.dtype == torch.float64 for p in nn.Module.parameters(model)):
        tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        raise CaptureError("x: expected finite numbers; found NaN or infinity")
    _require_on_cpu(model)
    _size_thresholds(model, tensor, call)
    for name, parameter in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(parameter, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise CaptureError(
                f"parameter '{name}' has no shape yet; call the module once on x, which gives it one, then capture it"
            )
        if parameter.is_meta:
            raise CaptureError(f"parameter '{name}' has no values (it is on the meta device); load its weights first")
        if parameter.layout != torch.strided:
            raise CaptureError(f"parameter '{name}' is sparse; a graph holds all weights: make it dense by .to_dense()")
        if parameter.is_complex():
            raise CaptureError(f"parameter '{name}' is complex; a graph holds real weights")
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise CaptureError(f"parameter '{name}' holds NaN or infinity")
    return tensor.contiguous()


def _size_thresholds(model: nn.Module, x: Tensor, call: Call) -> None:
    """Run a model once if its thresholds take their sizes from a batch; `nn.LazyLinear` would draw weights instead."""
    lazy = any(
        isinstance(m, LazyModuleMixin) and cast(Any, m).has_uninitialized_params() for m in nn.Module.modules(model)
    )
    if not lazy and any(is_lazy(tensor) for tensor in (*nn.Module.parameters(model), *model.buffers())):
        require_sequence(model, x, call)
        run_module(model, x, call)


def _require_on_cpu(model: nn.Module) -> None:
    """Raise CaptureError for weights on a GPU: own kernels there, as Triton's, are not seen."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type not in ("cpu", "meta"):
            raise CaptureError(
                f"parameter '{name}' is on {tensor.device}; capture runs a model on the CPU: give model.cpu()"
            )


def _fold(traced: Traced) -> FoldedLayers:
    """Fold the layers; a refusal names the layer's line in the user's code."""
    try:
        return fold_layers(traced.graph)
    except (CaptureError, GraphError) as error:
        layer = error.node if isinstance(error, GraphError) else error.layer
        where = traced.places.get(layer or "")
        if isinstance(error, CaptureError) and (where is None or error.line is not None):
            raise
        reason = in_code(error, traced.graph) if isinstance(error, GraphError) else error.reason
        line = None if where is None else where.line
        raise CaptureError(reason + in_module(where or NOWHERE), line=line, layer=layer) from None


def _prove(captured: Captured, x: Tensor) -> Proof:
    model, traced, folded = captured.model, captured.traced, captured.folded
    call, axis = traced.call, batch_axis(traced.call)
    replayed = ReplayProof(model, traced, x)
    values = replayed.run()
    stage("proving the folded layers")
    layers, own, array, real = _prove_folded(model, traced, folded, x, values)
    if not (casts_of_input(traced.steps) or coarse_types(traced.steps)):
        others = torch.cat([within(x, axis), beyond(x, axis)], axis)
        _prove_folded(model, traced, folded, others, module_values(traced, others))
    whole = end_to_end(folded.program, own, array)
    warned = (
        *rate_warnings({layer.layer: layer.rate for layer in layers if layer.compared}),
        *_difference_warnings(layers, whole),
        *_order_warnings(folded, x),
        *type_warnings(traced.steps),
        *version_warnings(model),
        *axis_warnings(model, x, call, folded.program, traced.length if replayed.fixed_steps else None),
        *(() if replayed.with_gradients else gradient_warnings(model, captured.few, call, traced.made)),
    )
    compared, runs = replayed.compared, tuple(replayed.done)
    sizes_of_x = *leading(array), call.time
    proof = Proof(compared, 0, runs, layers, whole, real, *sizes_of_x, traced.left_aside, warned, traced.states)
    return replace(proof, initial_norms=len(initial_norms(model)))


def _prove_folded(
    model: nn.Module, traced: Traced, folded: FoldedLayers, x: Tensor, values: Values
) -> tuple[tuple[LayerProof, ...], Spikes, NetworkInput, tuple[int, float]]:
    """Compare each layer of the folded graph and its output with the module's on ``x``.

    Also returns the module's spikes and ReLUs by layer, with its output, x, and what `prove_values` does.
    """
    spikes, y = module_spikes(traced, values, folded.arranged)
    array = graph_input(model, folded, torch.stack(steps_of(traced.call, x, traced.length)).float().numpy())
    layers = _proved_layers(traced, folded, spikes, array, module_currents(traced, values))
    most = MAX_COARSE_ROUNDING if coarse_types(traced.steps) else MAX_ROUNDING
    own = {**spikes, folded.program.outputs[0].name: y}
    return layers, own, array, prove_values(folded.program, own, array, most)


def _proved_layers(
    traced: Traced, folded: FoldedLayers, spikes: Spikes, x: NetworkInput, currents: Spikes
) -> tuple[LayerProof, ...]:
    try:
        layers = prove_layers(folded.program, spikes, x, traced.places)
        return (*layers, *prove_cells(folded.program, spikes, x, traced.places, currents))
    except CaptureError as error:
        for dtype in coarse_types(traced.steps):
            raise CaptureError(
                f"{error.reason}; but the model computes in {str(dtype).removeprefix('torch.')}, whose rounding no "
                "float32 graph has: capture model.float(), without autocast",
                layer=error.layer,
                step=error.step,
                neuron=error.neuron,
            ) from None
        raise


def _difference_warnings(layers: Sequence[LayerProof], whole: Mapping[str, int]) -> Iterator[str]:
    """Warn of spikes on x that differ from the module's. whole: the counts of `end_to_end`."""
    apart = [layer for layer in layers if layer.differing]
    if not apart and not whole["differing"]:
        if whole["outputs"]:
            where = counted(whole["outputs"], "value")
            yield f"{where} of the output on x: not the model's, as a comparison or a rounding before decides otherwise"
        return
    text = f"{count(whole['differing'], whole['compared'], ' spikes')} on x differ from the model's"
    if apart:
        first = max(apart, key=lambda layer: layer.farthest_ulp or 0)
        text += f": float32 rounds potentials near a threshold otherwise (layer '{first.layer}': {first.differing:,} "
        text += f"of {first.compared:,} on the model's own inputs, at most {first.farthest_ulp:.0f} units in the last "
        text += "place from it)"
    yield text


def _order_warnings(folded: FoldedLayers, x: Tensor) -> Iterator[str]:
    for given in folded.program.inputs:
        if given.name in folded.arranged:
            of = f"input '{given.name}'" if len(folded.program.inputs) > 1 else f"input, {list(x.shape)},"
            yield (
                f"the model rearranges its {of} before anything else; the graph takes it as "
                f"[T, B, {', '.join(map(str, given.shape))}] (simulate, verify and energy of this graph take either)"
            )
