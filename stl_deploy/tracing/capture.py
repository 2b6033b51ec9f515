"""Capture a module: trace one step of it, fold its layers, and prove the graph on its own input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from stl_deploy._util.arrays import as_array, require_held_by_float32
from stl_deploy._util.files import leading
from stl_deploy._util.remedies import option
from stl_deploy._util.units import counted
from stl_deploy._util.working import stage
from stl_deploy.errors import CaptureError
from stl_deploy.graph.compare import rate_warnings
from stl_deploy.graph.program import CAPTURED, MATRICES, Floats
from stl_deploy.graph.run import NetworkInput
from stl_deploy.passes.base import Rewritten
from stl_deploy.tracing.captured import (
    Capture,
    Captured,
    Fold,
    as_floats,
    folded_layers,
    inflated,
    require_on_cpu,
)
from stl_deploy.tracing.initial_norms import initial_norms
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
    prove_decomposed,
    prove_layers,
    prove_values,
)
from stl_deploy.tracing.proof.module_values import module_currents, module_spikes, module_values
from stl_deploy.tracing.proof.other_sizes import ReplayProof
from stl_deploy.tracing.proof.replay import Values
from stl_deploy.tracing.recognition.exact_types import casts_of_input, coarse_types, type_warnings
from stl_deploy.tracing.recording.model_state import uncompiled
from stl_deploy.tracing.recording.packed_inputs import Packed, pack
from stl_deploy.tracing.recording.remedies import version_warnings
from stl_deploy.tracing.recording.repeatable import gradient_warnings, require_repeatable
from stl_deploy.tracing.recording.running import Call
from stl_deploy.tracing.recording.running import run as run_module
from stl_deploy.tracing.several_inputs import graph_input, split_input
from stl_deploy.tracing.time_axis import (
    FAILURES,
    as_asked,
    axis_warnings,
    few_samples,
    not_samples,
    require_memory,
    require_sequence,
)
from stl_deploy.tracing.trace import RECORDED, REPEATED, Traced, batch_axis, require_drawn_starts, steps_of, trace
from stl_deploy.tracing.unrolling.steps import FEWEST
from stl_deploy.tracing.unrolling.unroll import FEW_STEPS
from stl_deploy.tracing.without_time import shown_thrice, without_time

_CAUSES = {"random-numbers", "forward-changes"}
"""Slugs of refusals that name the line by which two calls differ."""
Spikes = Mapping[str, Floats]


def captured(model: nn.Module, x: Any, call: Call, fold: Fold, *, verify: bool) -> Capture:
    """Capture a module (see `stl_deploy.capture`). fold: makes the captured layers those of a graph.

    Raises CaptureError for a module without a graph, or with one that does not spike like it.
    """
    model = uncompiled(model)
    if call.time == "none":
        return _without_time(model, x, call, fold, verify)
    return _Capturing(model, x, call, fold, verify).run()


def _without_time(model: nn.Module, x: Any, call: Call, fold: Fold, verify: bool) -> Capture:
    timeless = replace(call, time="step", timeless=True)
    return without_time(_Capturing(model, shown_thrice(x), timeless, fold, verify).run(), x)


class _Capturing:
    """One capture. batch: x as floats; few: some samples of it, which are traced."""

    def __init__(self, model: nn.Module, x: Any, call: Call, fold: Fold, verify: bool) -> None:
        self.model, self.x = pack(model, x, call.time)
        self.call, self.fold, self.verify = call, fold, verify
        self.batch = _batch(self.model, self.x, call)
        self.few = few_samples(self.batch, call)
        self.axis = batch_axis(call)

    def run(self) -> Capture:
        """Trace a few steps of x if these tell all, else all of them, or more."""
        stage("tracing")
        model, few, call = self.model, self.few, self.call
        steps = few.shape[1 - self.axis]
        varies = self.verify and call.time != "inside" and not call.timeless
        repeats = varies and FEWEST <= steps < REPEATED
        if varies and steps > RECORDED:
            with suppress(*FAILURES):  # longer delays, a fixed number of steps: all steps tell, or say why not
                return self._of_steps(RECORDED)
        try:
            traced = trace(model, few, call)
        except CaptureError as error:
            if repeats and error.slug == FEW_STEPS:
                with suppress(*FAILURES):
                    return self._of_steps(REPEATED)
            if call.time == "first" and error.__cause__ is not None:
                with suppress(CaptureError):
                    made = _without_time(model, self.x, call, self.fold, self.verify)
                    if not made.program.spiking:
                        return made
            raise self._refusal(error) from error
        try:
            return self._proved(few, traced)
        except ComputesOtherwiseError:
            if repeats and torch.equal(run_module(model, few, traced.call), traced.made):
                with suppress(*FAILURES):
                    return self._of_steps(REPEATED)
            raise
        except CaptureError as error:
            if error.__cause__ is None:
                raise
            raise as_asked(error, model, self.batch, call) from error  # forward fails on other numbers of samples

    def _of_steps(self, count: int) -> Capture:
        """Trace so many steps of x, which is repeated."""
        few, axis = self.few, self.axis
        part = sized(few, axis, samples=few.shape[axis], steps=count)
        return self._proved(part, replace(trace(self.model, part, self.call), length=few.shape[1 - axis]))

    def _refusal(self, error: CaptureError) -> CaptureError:
        """Return the refusal of a model that cannot be traced; raise one with a cause that lies deeper."""
        model, few, call = self.model, self.few, self.call
        require_floats_taken(error, model, self.x, self.batch, call)
        try:
            run_module(model, self.batch, call)
        except CaptureError as failure:  # where forward fails, it says so of x
            raise as_asked(failure, model, self.batch, call) from failure.__cause__
        try:
            run_module(model, few, call)
            error.__cause__ = None  # it failed in the record alone
        except CaptureError as failure:
            error = error if error.__cause__ is not None else failure
        asked = as_asked(error, model, self.batch, call)
        if error.__cause__ is not None:
            return not_samples(self.batch, few, call) if asked is error else asked
        if error.slug not in _CAUSES:
            require_repeatable(model, few, permuted(few, 7), call)
        return asked

    def _proved(self, few: Tensor, traced: Traced) -> Capture:
        """Return the graph of a traced step, proved on x. few: what was traced."""
        model, batch, call = self.model, self.batch, traced.call
        operations = traced.recorded * sum(1 + signal.node.elements() // 2**9 for signal in traced.steps.signals)
        beside = ReplayProof(model, traced, batch)
        what, larger = beside.larger()
        beside.made[what] = require_repeatable(model, few, permuted(few, 7), call, traced.made, operations, larger)
        if call.drawn is not None:
            require_drawn_starts(model, few, traced)
        made = require_whole(traced, batch)
        require_same_in_own_types(model, self.x, batch, few, call)
        if isinstance(model, Packed):
            traced.graph, model.parts = split_input(traced.graph, model.parts)
        stage("folding")
        folded = folded_layers(traced, self.fold)
        require_memory(model, few, call, folded.program)
        shown: dict[str, Any] = {"time": call.time, "steps": traced.length, "largest": float(batch.abs().max())}
        if made is not None:
            shown["made"] = made
        matrices = inflated(traced.graph, folded.program, traced.matrices)
        if matrices:
            shown[MATRICES] = matrices
        metadata = {**folded.program.metadata, CAPTURED: shown}
        folded = replace(folded, program=replace(folded.program, metadata=metadata))
        original = Captured(model, traced, folded, few, self.fold)
        stage("proving on x")
        proof = replace(_prove(original, batch, beside), matrices=matrices) if self.verify else None
        inner = model._orig_mod if isinstance(model, Packed) else model
        name = type(inner).__name__.lower()
        return Capture(folded.program, proof, traced.readout, original, original.as_graph_input(batch), name)


def _batch(model: nn.Module, x: Any, call: Call) -> Tensor:
    require_module(model)
    tensor = as_floats(x)
    least, shape = 2 if call.time == "inside" else 3, list(tensor.shape)
    if not tensor.numel():
        raise CaptureError(f"x is {shape}, in which there is nothing; give at least one sample, of three steps or more")
    if len(shape) < 2:
        raise CaptureError(f"x: expected at least {least} axes with {option('time', call.time)}; found {shape}")
    require_held_by_float32(as_array(own_types(x)), "x")
    if tensor.dtype == torch.float64 and not any(p.dtype == torch.float64 for p in nn.Module.parameters(model)):
        tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        raise CaptureError("x: expected finite numbers; found NaN or infinity")
    require_on_cpu(model)
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
        is_mask = not isinstance(parameter, nn.Parameter)  # -inf, where attention does not look
        numbers = parameter[~parameter.isneginf()] if is_mask else parameter
        if parameter.is_floating_point() and not bool(torch.isfinite(numbers).all()):
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


def _prove(captured: Captured, x: Tensor, replayed: ReplayProof) -> Proof:
    model, traced, folded = captured.model, captured.traced, captured.folded
    call, axis = traced.call, batch_axis(traced.call)
    values = replayed.run()
    stage("proving the folded layers")
    layers, own, array, real = _prove_folded(model, traced, folded, x, values)
    if not (casts_of_input(traced.steps) or coarse_types(traced.steps)):
        others = torch.cat([within(x, axis), beyond(x, axis)], axis)
        _prove_folded(model, traced, folded, others, module_values(traced, others))
    whole = end_to_end(folded.program, own, array)
    decomposed, apart = prove_decomposed(model, call, x, _most_rounding(traced))
    warned = (
        *_decomposed_warnings(decomposed, apart),
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
    return replace(proof, initial_norms=initial_norms(traced.steps), decomposed=decomposed)


def _most_rounding(traced: Traced) -> float:
    return MAX_COARSE_ROUNDING if coarse_types(traced.steps) else MAX_ROUNDING


def _decomposed_warnings(decomposed: Mapping[str, float], apart: int) -> Iterator[str]:
    """Warn of outputs that are not the model's. apart: their number."""
    if apart:
        names = ", ".join(map(repr, sorted(decomposed)))
        yield (
            f"{counted(apart, 'value')} of the output on x: not the model's, as torch's kernels round {names} "
            "otherwise, and a comparison or a rounding behind decides otherwise"
        )


def _prove_folded(
    model: nn.Module, traced: Traced, folded: Rewritten, x: Tensor, values: Values
) -> tuple[tuple[LayerProof, ...], Spikes, NetworkInput, tuple[int, float]]:
    """Compare each layer of the folded graph and its output with the module's on ``x``.

    Also returns the module's spikes and ReLUs by layer, with its output, x, and what `prove_values` does.
    """
    spikes, y = module_spikes(traced, values, folded.places)
    array = graph_input(model, folded, torch.stack(steps_of(traced.call, x, traced.length)).float().numpy())
    layers = _proved_layers(traced, folded, spikes, array, module_currents(traced, values))
    own = {**spikes, folded.program.outputs[0].name: y}
    return layers, own, array, prove_values(folded.program, own, array, _most_rounding(traced))


def _proved_layers(
    traced: Traced, folded: Rewritten, spikes: Spikes, x: NetworkInput, currents: Spikes
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


def _order_warnings(folded: Rewritten, x: Tensor) -> Iterator[str]:
    for given in folded.program.inputs:
        if given.name in folded.places:
            of = f"input '{given.name}'" if len(folded.program.inputs) > 1 else f"input, {list(x.shape)},"
            yield (
                f"the model rearranges its {of} before anything else; the graph takes it as "
                f"[T, B, {', '.join(map(str, given.shape))}] (simulate, verify and energy of this graph take either)"
            )
