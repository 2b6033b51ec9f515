"""Walk from the output to the inputs, and build each signal as a sum of layers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from stl_deploy.errors import StlDeployError
from stl_deploy.graph.by_layer import sum_behind
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import DT, Floats, Input, Neuron, Operand, Output, Program, Shape
from stl_deploy.graph.run import run
from stl_deploy.passes.base import later
from stl_deploy.tracing.layers.draft import Operands, ProgramBuilder
from stl_deploy.tracing.recognition.cores import Recurrence, find_cores
from stl_deploy.tracing.recognition.exact_types import require_exact_types
from stl_deploy.tracing.recognition.first_step import require_same_first_values
from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.normal_form import NormalForm, Polynomial, Symbol
from stl_deploy.tracing.recognition.populations import Fitted, compact
from stl_deploy.tracing.recognition.readings import Population, read_core
from stl_deploy.tracing.recognition.thresholds import constant_of, find_thresholds
from stl_deploy.tracing.recognition.trial import fit_neuron, signals_of
from stl_deploy.tracing.recording.remedies import NOT_READ, no_form
from stl_deploy.tracing.recording.source_lines import Place, in_module
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal, SignalError, Steps


@dataclass(eq=False)
class Layers:
    """A Program. signals: for each spiking layer and ReLU the one it stands for, for each Cell those it puts out.

    places: where layers stand in the code. matrices: layers that are matrices because no node has their operation.
    operands: for each Cell, the signals that arrive at it.
    """

    graph: Program
    signals: dict[str, tuple[Signal, ...]]
    places: dict[str, Place]
    matrices: tuple[str, ...]
    operands: dict[str, tuple[Ref, ...]] = field(default_factory=dict)


def refusal(signal: Signal, why: str) -> SignalError:
    """Return a refusal that names the line of a signal."""
    return SignalError(signal, why + in_module(signal.node.place))


_CALLS = 16
"""The most calls within one another for each signal, as layers are built from the last one back."""


@contextmanager
def _recursion(calls: int) -> Iterator[None]:
    """Allow so many more calls within one another; frames of Python's own take no stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + calls)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


_ROUNDED = 1e-5
"""Share of a layer's largest output that kernels may round."""


_HOMOGENEOUS = (
    "mul",
    "div",
    "neg",
    "sum",
    "mean",
    "mm",
    "reshape",
    "expand",
    "rearranged",
    "_to_copy",
)
"""Operations that make zeros of zeros."""


def _was_zero(signal: Signal, lag: int) -> bool:
    """Whether a signal is known to be zero for ``lag`` steps before the first."""
    before = [node.tensor for node in signal.before[:lag]]
    return len(before) == lag and all(tensor is not None and not tensor.any() for tensor in before)


Fits = dict[frozenset[Signal], tuple[Population, Fitted]]


class Builder(ProgramBuilder):
    """Build the layers of one step. kinds: builder of a signal's layer, by operation (arguments as ATen has them).

    apart: signals of Cells (`CellBuilder`). fits: neurons by the signals of their cores, as far as they are known.
    """

    def __init__(self, steps: Steps, kinds: Mapping[str, Kind], apart: Set[Signal], fits: Fits) -> None:
        super().__init__()
        self.apart, self.fits = apart, fits
        self.steps, self.kinds = steps, kinds
        of_neurons = replace(steps, signals=tuple(signal for signal in steps.signals if signal not in apart))
        require_exact_types(of_neurons)
        self.thresholds = find_thresholds(of_neurons)
        self.cores, self._refused = find_cores(of_neurons, self.thresholds)
        self.signals: dict[str, tuple[Signal, ...]] = {}
        self.places: dict[str, Place] = {}
        self.matrices: list[str] = []
        self.operands: dict[str, tuple[Ref, ...]] = {}
        self._core_of: dict[Signal, Recurrence] = {}
        for core in self.cores:
            self._core_of.update(dict.fromkeys(core.members, core))
            if core.threshold is not None:
                self._core_of[core.threshold.signal] = core
        self._name_of: dict[Recurrence, str] = {}
        self._populations: dict[Recurrence, Population] = {}
        self._terms: dict[tuple[Signal, int], Operands] = {}
        self._path: frozenset[Signal] = frozenset()
        self._shift = 0
        self._compared = {*apart}

    def unrecognised(self) -> list[NoNeuronError]:
        """Return the refusals of all states that are no neurons, nor what raises a neuron's threshold."""
        refused = [*self._refused]
        raising = {core.threshold.adapts.members for core in self.cores if core.threshold and core.threshold.adapts}
        for core in self.cores:
            try:
                if core.members not in raising:
                    self._fitted(core)
            except NoNeuronError as error:
                refused.append(error)
        return refused

    def build(self) -> Layers:
        """Build all layers that the output depends on; raise CaptureError, with the line, for parts without a form."""
        self._name_cores()
        for signal in self.steps.signals:
            if signal.node.name == "input":
                node = Input(name=self.name("input", ""), shape=self.shape(signal), operands=())
                self._terms[signal, 0] = self.add(node)
        output = self.steps.output
        with _recursion(_CALLS * len(self.steps.signals)):
            terms = self.read(output)
        self.add(Output(name="output", shape=self.shape_of(terms) or self.shape(output.signal), operands=terms))
        require_same_first_values(self.steps, self._compared)
        layers = self.needed_for("output")
        kept = {layer.name for layer in layers}
        signals = {name: s for name, s in self.signals.items() if name in kept}
        return Layers(Program(layers, DT), signals, self.places, tuple(self.matrices), self.operands)

    def _name_cores(self) -> None:
        """Name spiking cores first, so that they get the modules' names."""
        for core in sorted(self.cores, key=lambda core: core.threshold is None):
            spikes = core.threshold.signal if core.threshold is not None else next(iter(core.members))
            self._name_of[core] = self.name("lif" if core.threshold is not None else "li", spikes.node.place.module)

    def shape(self, signal: Signal) -> Shape:
        """Return the shape of one sample."""
        layout = signal.node.layout
        while layout and layout[0] == ():
            layout = layout[1:]
        if layout and len(layout[0]) > 1 and layout[0][0] == BATCH and all(isinstance(f, int) for f in layout[0][1:]):
            layout = ((BATCH,), layout[0][1:], *layout[1:])
        if not layout or layout[0] != (BATCH,):
            raise refusal(
                signal,
                f"expected samples in the first axis of every value; found '{signal.node.called}' of another layout; "
                "keep [B, ...]",
            )
        return shape_of(layout, {BATCH: 1})[1:]

    def read(self, ref: Ref) -> Operands:
        """Return a reference's layers, as a sum of sources.

        A layer read late whose value before step 0 is its output for zeros (its bias) reads its own sources late.
        """
        lag = ref.lag + self._shift
        signal = ref.signal
        if signal in self._core_of or signal.node.name == "input" or not lag or signal.still:
            return later(self._signal(signal, 0), 0 if signal.still else lag)
        product = signal.node.name == "mul" and len(signal.reads()) > 1  # a gate's spikes are compared where it stands
        if product and not any(node.tensor is None or bool(node.tensor.any()) for node in signal.before[:lag]):
            return later(self._signal(signal, 0), lag)
        if _was_zero(signal, lag) and self._is_late_product(signal):
            return self._signal(signal, lag)
        outside = signal.node.name not in _HOMOGENEOUS or not self._of_zeros(signal, lag)
        if outside and _was_zero(signal, lag):
            return later(self._signal(signal, 0), lag)
        terms = self._signal(signal, lag)
        if outside and not signal.before and bool(self._at_rest(terms).any()):
            return later(self._signal(signal, 0), lag)  # step 0 of the code has nothing in its place, so no bias either
        return terms if self._begins_at_rest(signal, lag, terms) else self.started(Ref(signal, lag))

    def _begins_at_rest(self, signal: Signal, lag: int, terms: Operands) -> bool:
        """Return whether layers that read their sources late put out, before step 0, what the module has there."""
        before = [node.value.double().numpy() for node in signal.before[:lag]]
        if not before or not terms:
            return True
        rest = self._at_rest(terms).ravel()
        return all(
            each.size in (1, rest.size) and np.allclose(each.ravel(), rest, rtol=1e-5, atol=1e-6) for each in before
        )

    def started(self, ref: Ref) -> Operands:
        """Build what puts out a signal of earlier steps, and in the first steps what it was before."""
        raise NoNeuronError(ref.signal)

    def _is_late_product(self, signal: Signal) -> bool:
        """Whether weights without a bias are all that is between a signal and spikes: the spikes can be read late.

        NIR holds one delay in a loop before a layer, and none behind it.
        """
        biases = {"addmm": 0, "convolution": 2}
        while signal.node.name in ("mm", "_to_copy", *biases) and len(signal.reads()) == 1:
            bias = signal.args[biases[signal.node.name]] if signal.node.name in biases else None
            if isinstance(bias, Ref) or (bias is not None and bool(constant_of(bias).any())):
                return False
            signal = signal.reads()[0].signal
            if signal in self._core_of:
                return True
        return False

    def _of_zeros(self, signal: Signal, lag: int) -> bool:
        """Whether all that a signal reads was zero for ``lag`` steps before the first."""
        return all(
            ref.signal in self._core_of
            or ref.signal.node.name == "input"
            or ref.signal.still
            or _was_zero(ref.signal, lag + ref.lag)
            for ref in signal.reads()
        )

    def _signal(self, signal: Signal, shift: int) -> Operands:
        """Return the sources whose sum is a signal, ``shift`` steps ago."""
        key = (signal, shift)
        if key in self._terms:
            return self._terms[key]
        core = self._core_of.get(signal)
        if signal in self._path:
            raise refusal(
                signal,
                f"expected every loop to go through a neuron; found '{signal.node.called}' in one that goes through "
                "none (a recurrent layer without spikes?); put a neuron into it",
            )
        outer = self._shift, self._path
        self._shift, self._path = shift, self._path | {signal} if core is None else frozenset()
        try:
            if core is None:
                # a neuron that it reads may read it a step late, which has built it by then
                return self._terms.setdefault(key, self._layer(signal))
            name = self._name_of[core]
            self._terms[key] = (Operand(name),)
            if name not in self.nodes:
                self._core(core, name)
            if core.threshold is not None and signal is not core.threshold.signal:
                self._terms[key] = self._potential(core, signal)
        finally:
            self._shift, self._path = outer
        return self._terms[key]

    def _layer(self, signal: Signal) -> Operands:
        counted = self.thresholds.get(signal)
        kind = self.kinds.get(signal.node.name if counted is None or counted.count is None else "count")
        if kind is None:
            raise NoNeuronError(signal) if signal.node.pointwise else refusal(signal, no_form(signal.node.called))
        try:
            terms = kind(self, signal)
        except StlDeployError:
            raise
        except Exception:
            raise refusal(signal, NOT_READ.format(signal.node.called)) from None
        for name in self.nodes:
            self.places.setdefault(name, signal.node.place)
        return terms

    def _potential(self, core: Recurrence, signal: Signal) -> Operands:
        """Build the potential of a spiking neuron: a leaky integrator of the same input, with its resets as input.

        With h[t] = a·h[t-1] + i[t] + r·s[t-1] as it is compared, and h + c·s as the signal leaves it after the spike.
        """
        name, population = self._name_of[core], self._populations[core]
        spiking = self.nodes[name]
        late = late_reset(population)
        after = left_after(population, signal)
        if late is None or after is None or not spiking.operands:
            raise NoNeuronError(signal)
        twin = f"{name}_potential"
        if twin not in self.nodes:
            assert isinstance(spiking, Neuron)
            resets = self.scaled((Operand(name, 1),), late, spiking.shape, name) if bool(np.any(late)) else ()
            self.nodes[twin] = replace(
                spiking,
                name=twin,
                operands=(*spiking.operands, *resets),
                threshold=None,
                compare="gt",
                reset="value",
                v_reset=None,
                multi_spike=False,
                cap=None,
                rounding="down",
                adaptation=None,
            )
        if not bool(np.any(after)):
            return (Operand(twin),)
        return (Operand(twin), *self.scaled((Operand(name),), after, spiking.shape, name))

    def stands_for(self, name: str, signal: Signal) -> None:
        """Note the signal that a layer puts out, for the proof; a late copy is compared through its readers."""
        if not self._shift:
            self.signals[name] = (signal,)

    def _fitted(self, core: Recurrence) -> tuple[Population, Fitted]:
        """Return a core as a neuron; raise NoNeuronError for one that is none."""
        if core.members not in self.fits:
            foreign = {signal for signal, owner in self._core_of.items() if owner is not core} | self.apart
            population = read_core(core, lambda member: self._read_outside(core, member), foreign)
            self.fits[core.members] = population, fit_neuron(population, self.steps)
        return self.fits[core.members]

    def _core(self, core: Recurrence, name: str) -> None:
        """Build a core's neuron, and its input."""
        population, fitted = self._fitted(core)
        self._populations[core] = population
        self.places[name] = population.state.node.place
        self._compared |= signals_of(population)
        self.nodes[name] = replace(fitted.neuron, name=name)  # so that a loop finds it
        sources: list[Operand] = []
        late: list[tuple[Ref, Tensor, Operands]] = []
        for ref, gain, factor in zip(population.currents, fitted.gains, population.gains, strict=True):
            terms = self.widened(self.read(ref), self.shape(ref.signal), fitted.neuron.shape)
            if ref.lag and ref.signal not in self._core_of:
                late.append((ref, factor, terms))
            sources += self.scaled(terms, gain, fitted.neuron.shape, name)
        if not sources:
            raise refusal(
                population.state,
                f"nothing arrives at the neuron '{name}': its input is multiplied by 0, or x is read in the first step "
                "only; let forward take [T, B, ...], and give zeros after the first step",
            )
        sources += self._own(name, fitted)
        start = self._compensated(population, fitted.neuron.v_start, late)
        self.nodes[name] = replace(fitted.neuron, name=name, operands=tuple(sources), v_start=start)
        if core.threshold is not None:
            self.stands_for(name, core.threshold.signal)

    def _compensated(
        self, population: Population, start: Floats | None, late: list[tuple[Ref, Tensor, Operands]]
    ) -> Floats | None:
        """Return the start with which step 0 is the module's, whatever late layers put out there (a bias).

        late: currents of earlier steps, their gains and sources. ``start`` counts each as the module's value before
        step 0, or as 0 where the run shows none.
        """
        extra, largest = torch.zeros((), dtype=torch.float64), 0.0
        for ref, gain, terms in late:
            counted = ref.signal.before[ref.lag - 1].tensor if len(ref.signal.before) >= ref.lag else None
            put_out = gain * torch.from_numpy(self._at_rest(terms).astype(np.float64))
            extra = extra + put_out - (0 if counted is None else gain * counted.double())
            largest = max(largest, float(put_out.abs().max()))
        if float(extra.abs().max()) <= _ROUNDED * largest:
            return start
        if not bool(population.decay.all()):
            raise NoNeuronError(population.state)
        shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
        before = torch.zeros(()) if start is None else torch.from_numpy(np.asarray(start, np.float64))
        return compact(before - extra / population.decay, shape)

    def _at_rest(self, terms: Operands) -> Floats:
        """Return what layers ``[1, *shape]`` put out in step 0 if nothing came before it: their biases, or 0."""
        shape = self.nodes[terms[0].node].shape
        program = sum_behind(self.nodes, terms, shape, lambda name: isinstance(self.nodes[name], Neuron | Cell | Input))
        x = {node.name: np.zeros((1, 1, *node.shape), np.float32) for node in program.inputs}
        put_out: Floats = run(program, x).y[0]
        return put_out

    def _own(self, name: str, fitted: Fitted) -> Operands:
        """Return the neuron's own spikes, one step late, if it reads them."""
        if fitted.recurrent is None:
            return ()
        return self.scaled((Operand(name, 1),), fitted.recurrent, fitted.neuron.shape, name)

    def _read_outside(self, core: Recurrence, member: Signal) -> bool:
        if self.steps.output.signal is member:
            return True
        return any(
            ref.signal is member and signal not in core.members and self._core_of.get(signal) is not core
            for signal in self.steps.signals
            for ref in signal.reads()
        )


Kind = Callable[[Builder, Signal], Operands]
"""Function that builds the layer of a signal."""


def late_reset(population: Population) -> Floats | None:
    """Return a spike's effect on the next step's drive; None if it sets the potential, or a bound applies to it."""
    threshold = population.core.threshold
    assert threshold is not None
    if population.subtracts == "adapted" or population.v_min is not None:
        return None
    if population.reset not in ("none", "subtract", "subtract_delayed"):
        return None
    shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
    theta = threshold.theta.double().expand((1, *shape))
    factor = {"none": 0 * population.decay, "subtract": -population.decay, "subtract_delayed": -torch.ones(())}
    jump = factor[population.reset] * theta
    gains = population.gains
    own_gain = population.recurrent is None and all(torch.equal(gains[0], gain) for gain in gains)
    if gains and own_gain:  # of all that arrives
        if not bool(gains[0].all()):
            return None
        jump = jump / gains[0]
    return compact(jump, shape)


def left_after(population: Population, signal: Signal) -> Floats | None:
    """c where a signal is h + c·s of the potential h and its spike s; None where it is something else."""
    threshold = population.core.threshold
    assert threshold is not None
    h, s = Symbol(), Symbol(binary=threshold.count is None)
    known = {population.state: Polynomial.of(h), threshold.signal: Polynomial.of(s)}
    try:
        form = NormalForm(lambda read, lag: None if lag else known.get(read))(signal, 0)
    except NoFormError:
        return None
    if not form.is_affine({h, s}) or form[()].any() or not np.allclose(form[h,], 1, rtol=1e-6):
        return None
    return compact(torch.from_numpy(np.array(form[s,])), shape_of(population.state.node.layout, {BATCH: 1})[1:])
