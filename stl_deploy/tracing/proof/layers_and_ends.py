"""Prove a capture in three parts: the step's graph replayed, each layer on its own, and end to end."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy._util.tables import html_table
from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError
from stl_deploy.graph.by_layer import MAX_ULP, arriving_at, by_name, neuron_run
from stl_deploy.graph.compare import Tally, fired, rate_warnings
from stl_deploy.graph.program import Floats, Neuron, Operand, Output, Program
from stl_deploy.graph.run import NetworkInput, run
from stl_deploy.tracing import Time
from stl_deploy.tracing.proof.replay import Values, replay
from stl_deploy.tracing.recognition.thresholds import one_step
from stl_deploy.tracing.recording.decomposed import Decomposed
from stl_deploy.tracing.recording.operations import ROUNDS
from stl_deploy.tracing.recording.running import Call
from stl_deploy.tracing.recording.running import run as run_module
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.trace import Traced, record_steps, steps_of
from stl_deploy.tracing.unrolling.layout import BATCH, axis_of
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps

MAX_ROUNDING, MAX_COARSE_ROUNDING = 1e-3, 0.02
"""Largest difference of a folded output from the module's, relative to the largest; and in half precision."""
_READ: Mapping[Time, str] = {
    "first": "[T, B, ...]",
    "second": "[B, T, ...]",
    "step": "[T, B, ...], a call for each step",
    "inside": "[B, ...], the same at each step",
    "none": "[B, ...], without time",
}
"""The axes of x, by the position of time."""


class ComputesOtherwiseError(CaptureError):
    """The model runs, but its step differs from the captured one."""


@dataclass(frozen=True)
class LayerProof:
    """A spiking layer of the folded graph on the module's own layer inputs.

    compared, differing: its spikes. nearest_ulp: the least distance of any potential from the threshold, in units in
    the threshold's last place (in the largest current's where the threshold is 0). farthest_ulp: the greatest where a
    spike differs. rate: spikes per neuron and step. measured: operations that libraries round otherwise (exp, tanh), so
    that equal spikes are measured, not proved.

    Of a Cell, all comparisons and roundings are looked at, up to the step; a difference is reported where the currents
    are the module's up to rounding and the Cell computes the module's values of the module's currents.
    """

    layer: str
    compared: int
    differing: int
    nearest_ulp: float
    farthest_ulp: float | None
    rate: float
    measured: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Proof:
    """Result of proving a capture.

    replay_compared, replay_differing: values of the module and of the captured step in torch's own kernels, fresh
    inputs included. runs: the runs, in words. layers: see `LayerProof`. end_to_end: the folded graph's spikes on
    the reference run against the module's. values: of ReLUs and the output, and the largest difference relative to the
    largest value of its layer. steps, samples, time: as which x was read. left_aside: tensors that the
    module returns besides the graph's output, the first of them, because ``output`` named none. states: forward's
    arguments that got what it returned in the step before. before_fold: whether the proof is of the graph before a
    fold, which changed its numbers or rounded its input. matrices: layers that no node holds as they are, and how many
    times their MACs the matrices in their place have. initial_norms: batch norms that have seen no data. decomposed:
    operations that torch's own table spells out, and their largest difference from torch's kernels on x, relative to
    the largest value.
    """

    replay_compared: int
    replay_differing: int
    runs: tuple[str, ...]
    layers: tuple[LayerProof, ...]
    end_to_end: Mapping[str, int]
    values: tuple[int, float]
    steps: int
    samples: int
    time: Time = "first"
    left_aside: int = 0
    warnings: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    before_fold: bool = False
    matrices: Mapping[str, float] = field(default_factory=dict)
    initial_norms: int = 0
    decomposed: Mapping[str, float] = field(default_factory=dict)

    @property
    def silent(self) -> bool:
        """Whether no layer spiked on x; False if none was compared."""
        rates = [layer.rate for layer in self.layers if layer.compared]
        return bool(rates) and not any(rates)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        lists = {"layers": [asdict(layer) for layer in self.layers], "runs": list(self.runs)}
        return asdict(self) | lists | {"warnings": list(self.warnings), "states": list(self.states)}

    def _repr_html_(self) -> str:
        """Return the summary and a row for each layer, for notebooks."""
        rows = [
            (layer.layer, f"{layer.compared:,}", f"{layer.differing:,}", f"{layer.nearest_ulp:g}")
            for layer in self.layers
        ]
        head = ("layer", "spikes compared", "differ", "nearest to a threshold, ulp")
        text = html.escape(str(self)).replace("\n", "<br/>")
        return f"<p>{text}</p>{html_table([head, *rows])}"

    def __repr__(self) -> str:
        """Return the counts of values and spikes that were compared, and as which axes x was read."""
        differing = sum(layer.differing for layer in self.layers)
        compared = sum(layer.compared for layer in self.layers)
        first = f"; output: the first of {self.left_aside + 1} tensors (output= names another)"
        output = first if self.left_aside else ""
        output += f"; state passed from step to step: {', '.join(self.states)}" if self.states else ""
        for name, times in self.matrices.items():
            output += f"; layer '{name}' is a matrix of {times:,g} times its MACs"
        if self.initial_norms:
            output += f"; {counted(self.initial_norms, 'batch norm')} without statistics yet: check() draws them"
        if self.decomposed:
            names, most = ", ".join(map(repr, sorted(self.decomposed))), max(self.decomposed.values())
            output += f"; {names}: measured, not exact, {most:.1g} of the largest value from torch's kernels"
        rates = {layer.layer: layer.rate for layer in self.layers if layer.compared}
        output += "".join(f"; {warning}" for warning in rate_warnings(rates))
        output += "".join(
            f"; '{layer.layer}' is measured, not exact: libraries round {', '.join(layer.measured)} otherwise"
            for layer in self.layers
            if layer.measured
        )
        before = "of the graph before fold (evaluate() counts spikes that fold changes): " if self.before_fold else ""
        replayed = count(self.replay_differing, self.replay_compared, " values differ")
        folded = f"layer by layer: {count(differing, compared, ' spikes')}; end to end: "
        folded += count(self.end_to_end["differing"], self.end_to_end["compared"])
        if not self.end_to_end["compared"]:  # real numbers alone, which rounding moves
            values, apart = self.values
            folded = f"layer by layer: {values:,} values differ by at most {apart:.1g} of the largest"
        return f"{before}replayed: {replayed} ({len(self.runs)} runs); folded, {folded}{output}\n{self.reading}"

    @property
    def reading(self) -> str:
        """As which axes x was read."""
        steps = "" if self.time == "none" else f"{counted(self.steps, 'step')} of "
        return f"x read as {_READ[self.time]}: {steps}{counted(self.samples, 'sample')}"


def count(differing: int, compared: int, what: str = "") -> str:
    """Return ``0 of 40 values differ``, or that there was nothing to compare."""
    return f"{differing:,} of {compared:,}{what}" if compared else "nothing compared"


def prove_replay(model: nn.Module, traced: Traced, x: Tensor, what: str) -> int:
    """Compare the step's graph with the module on ``x``; return the number of compared values.

    Raises CaptureError naming layer, step and neuron where one differs.
    """
    sums = traced.readout.over_time in ("sum", "last")  # the last value of a sum that starts from a bias
    recorded, end, length = record_steps(model, x, traced.call, keep=True, length=traced.length, sums=sums)
    own = one_step(end.nodes)
    spikes = _spikes(traced.steps)
    if not _alike(traced.steps, own):
        raise ComputesOtherwiseError(
            f"the model computes something else on {what} than on x; does a branch depend on its input, or "
            "on the input's shape?"
        )
    values = replay(traced.steps, steps_of(traced.call, x, length), spikes)
    names = {signal: name for name, signals in traced.signals.items() for signal in signals}
    compared = 0
    for node, (signal, step) in own.of_node.items():
        if node.kept is None or step < 0:
            continue
        mine = traced.steps.signals[own.signals.index(signal)]
        if mine in values:
            name = names.get(mine) or mine.node.place.module or mine.node.name
            compared += _compare(values[mine][step].to(node.kept.dtype), node.kept, name, step, what)
    outputs = outputs_of(traced.steps.output, values, length)
    if end.axis is None or end.readout.then is not None:
        _require_readout(traced, outputs, recorded.tensor, end.axis, what)
        return compared
    for step, part in enumerate(recorded.tensor.unbind(end.axis), traced.readout.first_step(length)):
        compared += _compare(outputs[step], part, "output", step, what)
    return compared


def prove_outputs(
    model: nn.Module,
    traced: Traced,
    x: Tensor,
    what: str,
    values: Values | None = None,
    own: Tensor | None = None,
) -> int:
    """Compare the outputs of the step's graph with the module's on ``x``, without a record of its operations.

    values: what the graph computes on ``x``, if that is known; own: what the module does. Returns the number of
    compared values; raises ComputesOtherwiseError where they differ.
    """
    own = run_module(model, x, traced.call) if own is None else own
    try:
        values = values or replay(traced.steps, steps_of(traced.call, x, traced.length), [])
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # not the module's own, which ran
        raise ComputesOtherwiseError(
            f"the captured step does not run on {what}, but the model does: {error}"
        ) from error
    length = len(values[traced.steps.output.signal])
    outputs = outputs_of(traced.steps.output, values, length)
    made = torch.stack(outputs)[traced.readout.first_step(length) :]
    if length <= traced.steps.output.lag and traced.axis is not None:  # numbers from before the first step
        made = made.expand(own.movedim(traced.axis, 0).shape)
    if traced.axis is None or traced.readout.then is not None:
        _require_readout(traced, outputs, own, traced.axis, what)
        return own.numel()
    made = made.movedim(0, traced.axis)
    if made.numel() == own.numel():
        own = own.reshape(made.shape)  # squeeze() takes away an axis of one sample
    if made.shape != own.shape or bool(((made != own) & ~((made != made) & (own != own))).any()):
        raise ComputesOtherwiseError(
            f"the model computes something else on {what} than on x; does a branch depend on the step, or on the "
            "input's shape?"
        )
    return own.numel()


def prove_decomposed(model: nn.Module, call: Call, x: Tensor, most: float) -> tuple[dict[str, float], int]:
    """Compare operations that are spelled out with torch's own kernels on ``x``.

    Returns the largest difference of each, relative to its largest value, and the number of outputs that differ from
    those of the model as it is written; raises CaptureError for an operation that differs by more than ``most``.
    """
    if call.decomposed is None:
        return {}, 0
    mode = Decomposed(call.decomposed.kept, compares=True)
    made = run_module(model, x, replace(call, decomposed=mode)).double().numpy()
    for name, apart in mode.apart.items():
        if not apart <= most:
            raise CaptureError(
                f"'{name}' is not what torch's decomposition of it computes: {apart:.1g} of its largest value apart"
            )
    own = run_module(model, x, replace(call, decomposed=None)).double().numpy()
    largest = float(np.abs(own, where=np.isfinite(own), out=np.zeros_like(own)).max(initial=0))
    return mode.apart, int(np.count_nonzero(~np.isclose(made, own, 0, most * largest, equal_nan=True)))


def _require_readout(traced: Traced, outputs: list[Tensor], own: Tensor, axis: int | None, what: str) -> None:
    """Require that the readout of the outputs equals the module's result, up to the order of sums."""
    scores = traced.readout(torch.stack(outputs).double().numpy())
    expected = (own if axis is None else own.movedim(axis, 0)).double().numpy()
    atol = 1e-5 * float(np.abs(expected).max(initial=1.0))
    if scores.ndim == expected.ndim and scores.size < expected.size:  # constants of one sample, from before step 0
        scores = np.broadcast_to(scores, np.broadcast_shapes(scores.shape, expected.shape))
    if scores.size != expected.size or not np.allclose(scores.reshape(expected.shape), expected, rtol=1e-4, atol=atol):
        raise CaptureError(
            f"what the model makes of its outputs over time was read as '{traced.readout}', which does not give what "
            f"it returns on {what}; return every step, [T, B, ...], and apply the readout to that",
            layer="output",
        )


def outputs_of(output: Ref, values: Mapping[Signal, list[Tensor]], steps: int) -> list[Tensor]:
    """Return the output at every step."""
    return list(torch.broadcast_tensors(*(_output_at(output, values, step) for step in range(steps))))  # type: ignore[no-untyped-call]


def _output_at(output: Ref, values: Mapping[Signal, list[Tensor]], step: int) -> Tensor:
    """Return the output at a step; before the first one it is the signal's initial value."""
    if step >= output.lag:
        return values[output.signal][step - output.lag]
    before = output.signal.before[output.lag - step - 1].tensor
    assert before is not None
    axis = axis_of(output.signal.node.layout, BATCH)
    if axis is None or before.dim() != len(output.signal.node.layout) or before.shape[axis] <= 1:
        return before
    sample = before.narrow(axis, 0, 1)  # made of constants, with as many samples as the recorded run had
    return sample if torch.equal(sample.expand_as(before), before) else before


def _spikes(steps: Steps) -> list[Signal]:
    def is_spike(signal: Signal) -> bool:
        return (
            signal.node.dtype == torch.bool
            or signal.node.name in ROUNDS
            or (signal.node.name == "_to_copy" and any(read.signal.node.dtype == torch.bool for read in signal.reads()))
        )

    return [signal for signal in steps.signals if is_spike(signal)]


def _alike(a: Steps, b: Steps) -> bool:
    if len(a.signals) != len(b.signals) or a.output.lag != b.output.lag:
        return False
    index_a = {signal: i for i, signal in enumerate(a.signals)}
    index_b = {signal: i for i, signal in enumerate(b.signals)}
    return all(
        s.node.name == o.node.name
        and [(index_a[r.signal], r.lag) for r in s.reads()] == [(index_b[r.signal], r.lag) for r in o.reads()]
        for s, o in zip(a.signals, b.signals, strict=True)
    )


def _compare(actual: Tensor, expected: Tensor, layer: str, step: int, what: str) -> int:
    actual = actual.expand_as(expected) if actual.dim() == expected.dim() else actual.reshape(expected.shape)
    unequal = actual != expected
    both_nan = (actual != actual) & (expected != expected)
    unequal &= ~both_nan
    if bool(unequal.any()):
        index = tuple(int(i) for i in unequal.nonzero()[0])
        raise CaptureError(
            f"the captured step does not compute what the model does: layer '{layer}', step {step}, sample {index[0]}, "
            f"neuron {list(index[1:])} on {what} ({int(unequal.sum())} of {unequal.numel()} values differ); "
            "constants from numpy, or state that capture did not see?",
            layer=layer,
            step=step,
            neuron=index[1:],
        )
    return expected.numel()


def prove_layers(
    program: Program, spikes: Mapping[str, Floats], x: NetworkInput, places: Mapping[str, Place]
) -> tuple[LayerProof, ...]:
    """Run each spiking layer of the folded graph on the module's own layer inputs.

    places: of layers, in the user's code.
    Raises CaptureError for a difference farther than `MAX_ULP` from the threshold.
    """
    given = {**spikes, **by_name(program, x)}
    return tuple(_prove_layer(program, node, given, places) for node in program.spiking if node.name in spikes)


def _prove_layer(
    program: Program, layer: Neuron, given: Mapping[str, Floats], places: Mapping[str, Place]
) -> LayerProof:
    own, expected = neuron_run(program, layer, given), given[layer.name]
    if own.farthest is not None and own.farthest > MAX_ULP:
        raise _apart(layer, own.step, own.at, own.farthest, places.get(layer.name))
    return LayerProof(layer.name, expected.size, own.differing, own.nearest, own.farthest, float(expected.mean()))


def _apart(layer: Neuron, step: int, at: tuple[int, ...], ulp: float, place: Place | None) -> CaptureError:
    instead = ""
    if layer.multi_spike and step:
        instead = "; it fires several spikes a step: let each subtract the threshold, v = v - s * θ"
    return CaptureError(
        f"layer '{layer.name}' of the folded graph does not spike as the module's on the same inputs: step {step}, "
        f"sample {at[0]}, neuron {list(at[1:])}, {ulp:.0f} units in the last place from the threshold (more than "
        f"{MAX_ULP} cannot be rounding)"
        f"{instead}",
        line=None if place is None else place.line,
        layer=layer.name,
        step=step,
        neuron=at[1:],
    )


def prove_values(
    program: Program, values: Mapping[str, Floats], x: NetworkInput, most: float = MAX_ROUNDING
) -> tuple[int, float]:
    """Compare ReLUs and the output with the module's, up to rounding, where the layers before put out the module's.

    values: of the module's layers, and its output. Returns the number of values, and the largest difference relative to
    the largest value of its layer. Raises CaptureError where it is more than ``most``, as in a first step that is made
    otherwise than the steps after it.
    """
    given = {**values, **by_name(program, x)}
    graded = [node for node in program.of(Neuron) if not node.spiking and node.name in values]
    compared, farthest = 0, 0.0
    for node in (*graded, program.outputs[0]):
        before = {name: array for name, array in given.items() if name != node.name}
        read = node if isinstance(node, Output) else replace(program.outputs[0], operands=(Operand(node.name),))
        actual = arriving_at(program, replace(read, shape=node.shape), before)
        what = "the graph's output" if isinstance(node, Output) else f"layer '{node.name}' of the graph"
        expected = values[node.name].reshape(actual.shape)
        farthest = max(farthest, require_near(what, node.name, actual, expected, most, then=_IN_EVERY_STEP))
        compared += actual.size
    return compared, farthest


_IN_EVERY_STEP = "; do the same at every step, the first one, too"


def require_near(
    what: str, layer: str, actual: Floats, expected: Floats, most: float, *, line: str | None = None, then: str = ""
) -> float:
    """Return the largest difference relative to the largest value; raise CaptureError if it is more than ``most``."""
    finite = np.isfinite(expected)
    largest = float(np.abs(expected[finite]).max(initial=np.finfo(np.float32).tiny))
    apart = np.abs(np.subtract(actual, expected, where=finite, out=np.full(actual.shape, np.inf)))
    # Where the module has inf or NaN nothing was subtracted; the same inf, or NaN in both, is no difference.
    apart[(actual == expected) | (np.isnan(actual) & np.isnan(expected))] = 0
    unequal = ~(apart <= most * largest)
    if not unequal.any():
        return float(apart.max(initial=0.0)) / largest
    step, sample, *at = (int(i) for i in np.argwhere(unequal)[0])
    raise CaptureError(
        f"{what} is not the model's: step {step}, sample {sample}, neuron {at} is {actual[step, sample, *at]:g}, "
        f"expected {expected[step, sample, *at]:g}{then}",
        line=line,
        layer=layer,
        step=step,
        neuron=tuple(at),
    )


def end_to_end(program: Program, values: Mapping[str, Floats], x: NetworkInput) -> dict[str, int]:
    """Compare the folded graph's spikes on the reference run with the module's, and its output beyond rounding."""
    tally, own = Tally(), fired(program, values)
    made, y = run(program, x, record=list(own)), values[program.outputs[0].name]
    tally.add(own, fired(program, made.recorded))
    largest = float(np.abs(y, where=np.isfinite(y), out=np.zeros_like(y)).max(initial=0))
    near = np.isclose(made.y.reshape(y.shape), y, 0, MAX_ROUNDING * largest, equal_nan=True)
    return {"compared": tally.compared, "differing": tally.differing, "outputs": int(np.count_nonzero(~near))}
