"""From the graph of one step to a LayerGraph: cores become neurons, what stands between them becomes layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stl_deploy._util.windows import places
from stl_deploy.errors import CaptureError
from stl_deploy.graph.lower.loops import ordered
from stl_deploy.graph.program import (
    Conv,
    Delay,
    Floats,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Reshape,
    Scale,
    Shape,
    Source,
)
from stl_deploy.graph.segments import strongly_connected
from stl_deploy.nn.layer_graph import Concat, LayerGraph, MaxPool, Norm
from stl_deploy.tracing.cores import Core, find_cores, find_thresholds
from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.nodes import Node as StepNode
from stl_deploy.tracing.populations import Fitted, compact, fit_neuron
from stl_deploy.tracing.readings import read_core
from stl_deploy.tracing.recorder import map_tree
from stl_deploy.tracing.steps import Ref, Signal, Steps

_MAX_DENSE = 2**25
"""Most numbers in the weights that stand for an operation NIR has no node for."""
Terms = tuple[Source, ...]
"""What a layer reads: the sum of these."""


@dataclass(eq=False)
class Layers:
    """A LayerGraph, and for each of its spiking layers the signal that it stands for."""

    graph: LayerGraph
    signals: dict[str, Signal]
    resets: dict[str, str]


def to_layers(steps: Steps) -> Layers:
    """The LayerGraph of one step; raises CaptureError, with the line, for what has no form in it."""
    return _Builder(steps).build()


class _Builder:
    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.cores = find_cores(steps)
        self.thresholds = find_thresholds(steps)
        self.core_of: dict[Signal, Core] = {}
        for core in self.cores:
            self.core_of.update(dict.fromkeys(core.members, core))
            if core.threshold is not None:
                self.core_of[core.threshold.signal] = core
        self.nodes: dict[str, Node] = {}
        self.terms: dict[tuple[Signal, int], Terms] = {}
        self.shift = 0
        self.name_of_core: dict[Core, str] = {}
        self.signals: dict[str, Signal] = {}
        self.resets: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def build(self) -> Layers:
        for core in sorted(self.cores, key=lambda core: core.threshold is None):
            place = (core.threshold.signal if core.threshold is not None else next(iter(core.members))).node.place
            self.name_of_core[core] = self._name("lif" if core.threshold is not None else "li", place.module)
        for signal in self.steps.signals:
            if signal.node.name == "input":
                self.terms[signal, 0] = self._add(
                    Input(name=self._name("input", ""), shape=self._shape(signal), sources=()), signal
                )
        output = self.steps.output
        terms = self._read(output)
        for core in list(self.cores):
            if self.name_of_core[core] not in self.nodes and self._needed(core):
                self._core(core)
        self.nodes["output"] = Output(
            name="output", shape=self._shape_of(terms) or self._shape(output.signal), sources=terms
        )
        kept = _needed_for(self.nodes, "output")
        signals = {name: signal for name, signal in self.signals.items() if name in kept}
        return Layers(LayerGraph(_in_order(kept)), signals, self.resets)

    def _needed(self, core: Core) -> bool:
        name = self.name_of_core[core]
        return any(source.node == name for node in self.nodes.values() for source in node.sources)

    def _name(self, kind: str, module: str) -> str:
        """The module's name, or kind and count."""
        name = module.replace("/", "_")
        if not name or name in self.counts or name in ("input", "output"):
            base = f"{name}.{kind}" if name and name not in ("input", "output") else kind
            if kind == "input":
                return "input"
            number = self.counts.get(base, 0) + 1
            self.counts[base] = number
            return f"{base}{number}"
        self.counts[name] = 1
        return name

    def _shape(self, signal: Signal) -> Shape:
        layout = signal.node.layout
        if not layout or layout[0] != (BATCH,):
            raise CaptureError(
                f"'{signal.node.name}' does not keep samples in the first axis", line=signal.node.place.line
            )
        return shape_of(layout, {BATCH: 1})[1:]

    def _add(self, node: Node, signal: Signal) -> Terms:
        self.nodes[node.name] = node
        return (Source(node.name),)

    def _read(self, ref: Ref) -> Terms:
        """What a reference stands for, as a sum of sources.

        A layer read late whose value before step 0 is what it makes of zeros (its bias) reads its own sources late.
        """
        lag = ref.lag + self.shift
        signal = ref.signal
        if signal in self.core_of or signal.node.name == "input" or not lag or signal.still:
            return tuple(Source(s.node, s.delay + (0 if signal.still else lag)) for s in self._signal(signal, 0))
        if len(signal.before) >= lag and not any(_any(node) for node in signal.before[:lag]):
            return tuple(Source(s.node, s.delay + lag) for s in self._signal(signal, 0))
        return self._signal(signal, lag)

    def _signal(self, signal: Signal, shift: int) -> Terms:
        """The sources whose sum is a signal, ``shift`` steps ago."""
        key = (signal, shift)
        if key in self.terms:
            return self.terms[key]
        core = self.core_of.get(signal)
        outer, self.shift = self.shift, shift
        try:
            if core is not None:
                name = self.name_of_core[core]
                self._check_port(core, signal)
                self.terms[key] = (Source(name),)
                if name not in self.nodes:
                    self._core(core)
            else:
                self.terms[key] = self._layer(signal)
        finally:
            self.shift = outer
        return self.terms[key]

    def _check_port(self, core: Core, signal: Signal) -> None:
        if core.threshold is not None and signal is not core.threshold.signal:
            raise CaptureError(
                f"the potential of the spiking neuron '{self.name_of_core[core]}' is read outside of it; a "
                "graph's neuron "
                "puts out its spikes (choose another output=, or a neuron without threshold)",
                line=signal.node.place.line,
            )

    def _core(self, core: Core) -> None:
        name = self.name_of_core[core]
        foreign = {signal for signal, owner in self.core_of.items() if owner is not core}
        population = read_core(core, lambda member: self._read_outside(core, member), foreign)
        fitted = fit_neuron(population)
        self.nodes[name] = replace(fitted.neuron, name=name)  # so that a loop finds it
        self.resets[name] = population.reset
        sources: list[Source] = []
        for ref, gain in zip(population.currents, fitted.gains, strict=True):
            sources += self._scaled(self._read(ref), gain, fitted.neuron.shape, name)
        sources += self._own(name, fitted)
        self.nodes[name] = replace(fitted.neuron, name=name, sources=tuple(sources))
        if core.threshold is not None:
            self.signals[name] = core.threshold.signal

    def _own(self, name: str, fitted: Fitted) -> Terms:
        if fitted.recurrent is None:
            return ()
        return self._scaled((Source(name, 1),), fitted.recurrent, fitted.neuron.shape, name)

    def _scaled(self, terms: Terms, gain: Floats | None, shape: Shape, module: str) -> Terms:
        if gain is None or bool((gain == 1).all()):
            return terms
        name = self._name("scale", module)
        self.nodes[name] = Scale(name=name, shape=shape, sources=terms, scale=gain)
        return (Source(name),)

    def _read_outside(self, core: Core, member: Signal) -> bool:
        inside = core.members
        if self.steps.output.signal is member:
            return True
        return any(
            ref.signal is member and signal not in inside and self.core_of.get(signal) is not core
            for signal in self.steps.signals
            for ref in signal.reads()
        )

    def _layer(self, signal: Signal) -> Terms:
        kind = _LAYERS.get(signal.node.name)
        if kind is None:
            raise CaptureError(
                f"'{signal.node.name}'{_module(signal)} has no form in a spiking graph; docs/capture.md lists what has",
                line=signal.node.place.line,
            )
        found: Terms = kind(self, signal)
        return found

    # One method for each kind of layer. They read a signal's arguments as ATen has them.

    def _convolution(self, signal: Signal) -> Terms:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = signal.args
        if transposed:
            raise CaptureError("a transposed convolution has no form in NIR", line=signal.node.place.line)
        node = Conv(
            name=self._name("conv", signal.node.place.module),
            shape=self._shape(signal),
            sources=self._read(x),
            weight=_array(weight),
            bias=None if bias is None else _array(bias),
            stride=tuple(stride),
            padding=tuple((p, p) for p in padding),
            dilation=tuple(dilation),
            groups=groups,
            input_shape=self._shape(x.signal),
        )
        return self._add(node, signal)

    def _linear(self, signal: Signal) -> Terms:
        bias, x, weight = signal.args if signal.node.name == "addmm" else (None, *signal.args)
        if signal.kwargs.get("alpha", 1) != 1 or signal.kwargs.get("beta", 1) != 1:
            raise CaptureError("a scaled matrix product has no form in a graph", line=signal.node.place.line)
        if isinstance(weight, Ref) or isinstance(bias, Ref):
            raise CaptureError("two signals are multiplied; only fixed weights are known", line=signal.node.place.line)
        shape = self._shape(signal)
        node = Linear(
            name=self._name("linear", signal.node.place.module),
            shape=shape,
            sources=self._read(x),
            weight=np.ascontiguousarray(_array(weight).T),
            bias=None if bias is None else np.broadcast_to(_array(bias), shape).copy(),
            input_shape=self._shape(x.signal),
        )
        return self._add(node, signal)

    def _batch_norm(self, signal: Signal) -> Terms:
        x, weight, bias, mean, var, *rest = signal.args
        training = rest[0] if signal.node.name in ("native_batch_norm", "_native_batch_norm_legit") else False
        if training or not isinstance(mean, StepNode):
            raise CaptureError(
                "batch norm takes its statistics from the batch; a graph needs running ones (track_running_stats=True)",
                line=signal.node.place.line,
            )
        inverse = 1 / np.sqrt(_doubles(var) + float(rest[-1]))
        scale = inverse if weight is None else inverse * _doubles(weight)
        shift = (0.0 if bias is None else _doubles(bias)) - _doubles(mean) * scale
        return self._norm(signal, x, scale, shift)

    def _norm(self, signal: Signal, x: Ref, scale: Any, shift: Any) -> Terms:
        node = Norm(
            name=self._name("norm", signal.node.place.module),
            shape=self._shape(signal),
            sources=self._read(x),
            scale=scale,
            shift=shift,
        )
        return self._add(node, signal)

    def _max_pool(self, signal: Signal) -> Terms:
        x, kernel, stride, padding, dilation, ceil = _with_defaults(signal.args, (None, None, [], 0, 1, False))
        if set(_pair(dilation)) != {1} or ceil:
            raise CaptureError("max pooling with dilation or ceil_mode has no form in NIR", line=signal.node.place.line)
        node = MaxPool(
            name=self._name("pool", signal.node.place.module),
            shape=self._shape(signal),
            sources=self._read(x),
            kernel=_pair(kernel),
            stride=_pair(stride or kernel),
            padding=tuple((p, p) for p in _pair(padding)),
            input_shape=self._shape(x.signal),
        )
        return self._add(node, signal)

    def _avg_pool(self, signal: Signal) -> Terms:
        x, kernel, stride, padding, ceil, counts, divisor = _with_defaults(
            signal.args, (None, None, [], 0, False, True, None)
        )
        window, pads = _pair(kernel), _pair(padding)
        area = window[0] * window[1]
        if ceil or (any(pads) and not counts) or divisor not in (None, 1, area):
            raise CaptureError(
                "average pooling with ceil_mode, with padding that does not count, or another divisor has no "
                "form in NIR",
                line=signal.node.place.line,
            )
        return self._pool(signal, x, window, _pair(stride or kernel), pads, 1 if divisor == 1 else area)

    def _pool(self, signal: Signal, x: Ref, window: Shape, stride: Shape, pads: Shape, divisor: int) -> Terms:
        before = self._shape(x.signal)
        shape = self._shape(signal)
        from_line = x.signal.node.name == "reshape" and len(self._shape(x.signal.args[0].signal)) < 3
        if len(before) != 3 or from_line:
            return self._dense(signal, x)
        sizes = [places(n, k, s, 2 * p) for n, k, s, p in zip(before[1:], window, stride, pads, strict=True)]
        node = Pool(
            name=self._name("pool", signal.node.place.module),
            shape=(before[0], *sizes),
            sources=self._read(x),
            kernel=window,
            stride=stride,
            padding=tuple((p, p) for p in pads),
            divisor=divisor,
            input_shape=before,
        )
        terms = self._add(node, signal)
        return terms if node.shape == shape else self._reshaped(signal, terms, node.shape)

    def _adaptive_pool(self, signal: Signal) -> Terms:
        x, size = signal.args[:2]
        before = self._shape(x.signal)
        if before[1:] == tuple(size):
            return self._read(x)
        if any(n % k for n, k in zip(before[1:], size, strict=True)):
            return self._dense(signal, x)  # windows of several sizes
        window = tuple(n // k for n, k in zip(before[1:], size, strict=True))
        return self._pool(signal, x, window, window, (0, 0), window[0] * window[1])

    def _mean(self, signal: Signal) -> Terms:
        x, dims, _ = signal.args
        before = self._shape(x.signal)
        if len(before) == 3 and sorted(dims) == [2, 3]:
            divisor = 1 if signal.node.name == "sum" else before[1] * before[2]
            return self._pool(signal, x, before[1:], before[1:], (0, 0), divisor)
        return self._dense(signal, x)

    def _dense(self, signal: Signal, x: Ref) -> Terms:
        """A linear operation that NIR has no node for, as weights on the flat values: what it makes of unit vectors."""
        before = self._shape(x.signal)
        count, made = int(np.prod(before)), int(np.prod(self._shape(signal)))
        if count * made > _MAX_DENSE:
            raise CaptureError(
                f"'{signal.node.name}' from {list(before)} to {list(self._shape(signal))} has no form in NIR, "
                "and as weights "
                f"it would be {count * made:,} numbers",
                line=signal.node.place.line,
            )
        units = torch.eye(count).reshape(count, *before)
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: units)
        rows = signal.node.run(args, kwargs, {BATCH: count}).reshape(count, made)
        node = Linear(
            name=self._name("linear", signal.node.place.module),
            shape=(made,),
            sources=self._flat(signal, x),
            weight=np.ascontiguousarray(rows.T.numpy()),
            bias=None,
            input_shape=(count,),
        )
        return self._add(node, signal)

    def _reshape(self, signal: Signal) -> Terms:
        (x,) = signal.args
        return self._reshaped(signal, self._read(x), self._shape(x.signal))

    def _reshaped(self, signal: Signal, terms: Terms, before: Shape) -> Terms:
        """Terms in the shape of a signal; what is flat already, or was before it got another shape, stays so."""
        shape = self._shape(signal)
        known = self._shape_of(terms)
        if shape == (known or before):
            return terms
        if len(terms) == 1 and isinstance(inner := self.nodes.get(terms[0].node), Reshape) and not terms[0].delay:
            if inner.input_shape == shape:
                return inner.sources
            if int(np.prod(shape)) == shape[0]:
                terms, known = inner.sources, inner.input_shape
        node = Reshape(
            name=self._name("flatten", signal.node.place.module),
            shape=shape,
            sources=terms,
            input_shape=known or before,
        )
        return self._add(node, signal)

    def _shape_of(self, terms: Terms) -> Shape | None:
        """The shape that terms have, where it is known by now."""
        found = [self.nodes[source.node].shape for source in terms if source.node in self.nodes]
        return found[0] if found else None

    def _flat(self, signal: Signal, x: Ref) -> Terms:
        """What ``x`` is, as one axis."""
        if x.signal.node.name == "reshape":
            inner = x.signal.args[0]
            x = Ref(inner.signal, inner.lag + x.lag)
        terms, before = self._read(x), self._shape(x.signal)
        known = self._shape_of(terms) or before
        if len(known) == 1:
            return terms
        name = self._name("flatten", signal.node.place.module)
        self.nodes[name] = Reshape(name=name, shape=(int(np.prod(known)),), sources=terms, input_shape=known)
        return (Source(name),)

    def _sum(self, signal: Signal) -> Terms:
        left, right = signal.args[:2]
        if signal.node.name == "rsub":
            left, right = right, left
        scale = signal.kwargs.get("alpha", 1) * (-1 if signal.node.name in ("sub", "rsub") else 1)
        if isinstance(left, Ref) and isinstance(right, Ref):
            shape = self._shape(signal)
            for ref in (left, right):
                if self._shape(ref.signal) != shape:
                    raise CaptureError(
                        f"signals of shapes {list(self._shape(left.signal))} and "
                        f"{list(self._shape(right.signal))} are added",
                        line=signal.node.place.line,
                    )
            gain = None if scale == 1 else np.asarray(scale, np.float32)
            terms = (*self._read(left), *self._scaled(self._read(right), gain, shape, ""))
            return self._distinct(terms, shape)
        x, constant = (left, right) if isinstance(left, Ref) else (right, left)
        value = self._channels(signal, constant)
        if scale != 1 and x is right:
            return self._norm(signal, x, -np.ones(len(value)), value)
        return self._norm(signal, x, np.ones(len(value)), value * (scale if x is left else 1))

    def _distinct(self, terms: Terms, shape: Shape) -> Terms:
        """A source that is added twice is scaled by 2, as an edge is in a graph only once."""
        found: dict[Source, int] = {}
        for source in terms:
            found[source] = found.get(source, 0) + 1
        made: list[Source] = []
        for source, count in found.items():
            made += self._scaled((source,), None if count == 1 else np.asarray(count, np.float32), shape, "")
        return tuple(made)

    def _channels(self, signal: Signal, constant: Any) -> Any:
        """A constant as one float64 for each channel."""
        shape = self._shape(signal)
        tensor = _number(constant)
        array = compact(tensor.double().expand((1, *shape)), shape).astype(np.float64)
        tensor = tensor.double().expand((1, *shape))[0]
        if array.ndim == 0:
            return np.full(shape[0], float(tensor.reshape(-1)[0]))
        if array.shape[1:] != (1,) * (len(shape) - 1):
            raise CaptureError(
                "a constant that differs between pixels is added or multiplied; one for each channel has a form",
                line=signal.node.place.line,
            )
        return tensor.reshape(shape[0], -1)[:, 0].numpy()

    def _product(self, signal: Signal) -> Terms:
        left, right = signal.args[:2]
        if isinstance(left, Ref) and isinstance(right, Ref):
            return self._gate(signal, left, right)
        if signal.node.name == "div" and not isinstance(left, Ref):
            raise CaptureError("a constant is divided by a signal", line=signal.node.place.line)
        x, constant = (left, right) if isinstance(left, Ref) else (right, left)
        shape = self._shape(signal)
        tensor = _number(constant)
        gain = 1 / tensor.double() if signal.node.name == "div" else tensor.double()
        terms = self._scaled(self._read(x), compact(gain.expand((1, *shape)), shape), shape, signal.node.place.module)
        return terms

    def _gate(self, signal: Signal, *operands: Ref) -> Terms:
        """The product of two spikes (AND), or of a spike and what is left of another (AND NOT), as a threshold."""
        shape = self._shape(signal)
        terms: list[Source] = []
        negated = 0
        for ref in operands:
            inner, turned = self._turned(ref)
            found = self._read(inner)
            negated += turned
            if not self._binary(found):
                raise CaptureError(
                    "two signals are multiplied that are not both spikes (gating), which no spiking graph holds",
                    line=signal.node.place.line,
                )
            terms += self._scaled(found, np.asarray(-1, np.float32) if turned else None, shape, "")
        if negated == len(operands):
            raise CaptureError("a product of two negated spikes has no form in a graph", line=signal.node.place.line)
        node = Neuron(
            name=self._name("gate", ""),
            shape=shape,
            sources=tuple(terms),
            decay=None,
            threshold=np.asarray(0.5 if negated else 1.5, np.float32),
        )
        self.signals[node.name] = signal
        self.resets[node.name] = "value"
        return self._add(node, signal)

    def _turned(self, ref: Ref) -> tuple[Ref, bool]:
        """``1 - s`` as s, and whether it was."""
        node, args = ref.signal.node, ref.signal.args
        if node.name == "rsub" and isinstance(args[0], Ref) and args[1] == 1:
            return Ref(args[0].signal, args[0].lag + ref.lag), True
        from_one = node.name == "sub" and isinstance(args[0], StepNode) and bool((_number(args[0]) == 1).all())
        if from_one and isinstance(args[1], Ref):
            return Ref(args[1].signal, args[1].lag + ref.lag), True
        return ref, False

    def _binary(self, terms: Terms) -> bool:
        if len(terms) != 1:
            return False
        node = self.nodes.get(terms[0].node)
        if isinstance(node, MaxPool | Reshape):
            return self._binary(node.sources)
        return isinstance(node, Neuron) and node.spiking and not node.many

    def _negated(self, signal: Signal) -> Terms:
        return self._scaled(self._read(signal.args[0]), np.asarray(-1, np.float32), self._shape(signal), "")

    def _same(self, signal: Signal) -> Terms:
        return self._read(signal.args[0])

    def _concatenated(self, signal: Signal) -> Terms:
        parts, axis = signal.args
        if axis != 1:
            raise CaptureError("values are concatenated on another axis than the channels", line=signal.node.place.line)
        sources: list[Source] = []
        for part in parts:
            terms = self._read(part)
            if len(terms) > 1:
                name = self._name("sum", "")
                shape = self._shape(part.signal)
                self.nodes[name] = Reshape(name=name, shape=shape, sources=terms, input_shape=shape)
                terms = (Source(name),)
            sources += terms
        node = Concat(
            name=self._name("concat", signal.node.place.module),
            shape=self._shape(signal),
            sources=tuple(sources),
            sizes=tuple(self._shape(part.signal)[0] for part in parts),
        )
        return self._add(node, signal)

    def _spikes(self, signal: Signal) -> Terms:
        """A comparison of something that holds no state: a neuron without memory."""
        threshold = self.thresholds.get(signal)
        if threshold is None:
            raise CaptureError(
                f"'{signal.node.name}'{_module(signal)} is no comparison with a fixed threshold",
                line=signal.node.place.line,
            )
        shape = self._shape(signal)
        node = Neuron(
            name=self._name("threshold", signal.node.place.module),
            shape=shape,
            sources=self._read(Ref(threshold.potential, 0)),
            decay=None,
            threshold=compact(threshold.theta.expand((1, *shape)), shape),
            compare="gt" if threshold.compare == "gt" else "ge",
        )
        self.signals[node.name] = signal
        self.resets[node.name] = "value"
        return self._add(node, signal)


_LAYERS: dict[str, Any] = {
    "convolution": _Builder._convolution,
    **dict.fromkeys(("addmm", "mm"), _Builder._linear),
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
            "_native_batch_norm_legit",
            "_batch_norm_no_update",
        ),
        _Builder._batch_norm,
    ),
    **dict.fromkeys(("max_pool2d_with_indices", "mkldnn_max_pool2d"), _Builder._max_pool),
    "avg_pool2d": _Builder._avg_pool,
    "_adaptive_avg_pool2d": _Builder._adaptive_pool,
    **dict.fromkeys(("mean", "sum"), _Builder._mean),
    "reshape": _Builder._reshape,
    **dict.fromkeys(("add", "sub", "rsub"), _Builder._sum),
    **dict.fromkeys(("mul", "div"), _Builder._product),
    "neg": _Builder._negated,
    **dict.fromkeys(("_to_copy", "clone"), _Builder._same),
    "cat": _Builder._concatenated,
    **dict.fromkeys(("gt", "ge", "lt", "le", "heaviside"), _Builder._spikes),
}


def _number(constant: Any) -> torch.Tensor:
    found = constant.tensor if isinstance(constant, StepNode) else torch.tensor(float(constant))
    assert found is not None
    return found


def _any(node: StepNode) -> bool:
    return node.tensor is None or bool(node.tensor.any())


def _module(signal: Signal) -> str:
    return f" in module '{signal.node.place.module}'" if signal.node.place.module else ""


def _with_defaults(args: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*args, *defaults[len(args) :])


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))


def _array(node: Any) -> Floats:
    tensor = node.tensor
    return tensor.detach().cpu().float().numpy()  # type: ignore[no-any-return]


def _doubles(node: Any) -> Any:
    return node.tensor.detach().cpu().double().numpy()


def _needed_for(nodes: dict[str, Node], name: str) -> dict[str, Node]:
    """The nodes that one depends on, and inputs."""
    needed, waiting = {name}, [name]
    while waiting:
        for source in nodes[waiting.pop()].sources:
            if source.node not in needed:
                needed.add(source.node)
                waiting.append(source.node)
    return {key: node for key, node in nodes.items() if key in needed or isinstance(node, Input)}


def _in_order(nodes: dict[str, Node]) -> tuple[Node, ...]:
    lagless = {key: [source.node for source in node.sources if not source.delay] for key, node in nodes.items()}
    for group in strongly_connected(list(nodes), lagless):
        if len(group) > 1 or group[0] in lagless[group[0]]:
            raise CaptureError(f"layers {', '.join(group)} depend on one another within one step", layer=group[0])
    return ordered(nodes)


__all__ = ["Delay", "Layers", "to_layers"]
