"""Run any Program as a trainable torch module with the Program's spikes.

    module = ProgramModule(program)
    y = module(x)                # [T, B, *shape]
    program = module.program()   # with the current numbers

Each operation of the Program is one of torch's, in the order of the equations in `stl_deploy.graph.program`. Weights,
biases, scales, thresholds and the arrays of Cells are parameters; spikes have a surrogate gradient.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy._util.caller import warn_caller
from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.axis_order import axes_in_doubt
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.segments import is_loop, segments
from stl_deploy.nn.cell_layer import CellLayer, States
from stl_deploy.nn.layers import pads_of, require_tensor, rounded
from stl_deploy.nn.lif_scan import lif_scan, spike
from stl_deploy.nn.node_layer import NodeLayer, as_array
from stl_deploy.nn.surrogate import Surrogate, surrogate_of

_STATE = ("decay", "gain", "offset", "v_reset", "v_min", "v_start", "i_start")


class ProgramModule(nn.Module):
    """A Program of one input and one output, ``[T, B, *input shape]`` to ``[T, B, *output shape]``, from rest.

    layers: a module for each node with numbers, by its name (with ``/`` for a dot); those given replace the usual ones.
    surrogate: of the spikes' gradient, as `stl_deploy.nn.neuron.LIF` takes it. Raises InputError for several inputs or
    outputs.
    """

    def __init__(
        self,
        program: ir.Program,
        *,
        surrogate: str | Surrogate = "arctan",
        layers: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if len(program.inputs) != 1 or len(program.outputs) != 1:
            raise InputError(
                f"expected a network of one input and one output; found {len(program.inputs)} and "
                f"{len(program.outputs)}; run it as a SpikingGraph"
            )
        self._program = program
        self._segments, self._by_name = segments(program), program.by_name
        self.layers = nn.ModuleDict()
        for node in program.nodes:
            layer = layers.get(node.name)
            if layer is None and isinstance(node, ir.Neuron):
                layer = Population(node, surrogate)
            elif layer is None and isinstance(node, Cell):
                layer = CellLayer(node, surrogate)
            elif layer is None and type(node) in _LAYERS:
                layer = _LAYERS[type(node)](node)
            if layer is not None:
                self.layers[_key(node.name)] = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the output at every step; raise InputError for input of another shape or type.

        Warns of ``[B, T, ...]``, as the module that the Program was captured from may take it.
        """
        made = self._values(x, {})
        if not torch.compiler.is_compiling() and (doubt := axes_in_doubt(self._program.metadata, x)) is not None:
            warn_caller(doubt)
        return made

    def record(self, x: Tensor, *, every_layer: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output, and the spikes of every spiking population by name; every_layer: has no effect."""
        kept: dict[str, Tensor] = {node.name: x for node in self._program.compared}
        return self._values(x, kept), kept

    @torch.no_grad()
    def observe(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Return the outputs ``[T, B, *shape]`` of the named nodes on x, without gradients."""
        kept = dict.fromkeys(names, x)
        self._values(x, kept)
        return kept

    @torch.no_grad()
    def program(self) -> ir.Program:
        """Return the Program with the present numbers."""
        nodes = (self._restored(node) for node in self._program.nodes)
        return replace(self._program, nodes=tuple(nodes))

    def layer(self, node: ir.Node) -> nn.Module | None:
        """Return the module of a node, or None where it has no numbers."""
        key = _key(node.name)
        if key not in self.layers:
            return None
        return self.layers[key]

    def _restored(self, node: ir.Node) -> ir.Node:
        layer = self.layer(node)
        return node if layer is None else cast("NodeLayer", layer).restored()

    def _values(self, x: Tensor, kept: dict[str, Tensor]) -> Tensor:
        (entry,), (end,) = self._program.inputs, self._program.outputs
        x = self._taken(x)
        values: dict[str, Tensor] = {entry.name: x}
        for segment in self._segments:
            if is_loop(segment):
                values |= self._loop(segment, values, len(x), x.shape[1])
                continue
            (node,) = segment
            if node is not entry:
                values[node.name] = self._run(node, values)
        kept |= {name: values[name] for name in kept}
        return values[end.name]

    def _taken(self, x: Tensor) -> Tensor:
        """Return the input; raise InputError unless it is a tensor of the entry's shape and the weights' type."""
        (entry,) = self._program.inputs
        return require_tensor(x, entry.shape, self._type())

    def _type(self) -> torch.dtype:
        """Return the type of its weights and thresholds."""
        return next((each.dtype for each in self.parameters() if each.is_floating_point()), torch.float32)

    def _run(self, node: ir.Node, values: Mapping[str, Tensor]) -> Tensor:
        """Return a node's output ``[T, B, *shape]``; values: those of its operands, by name."""
        x = _combined(node, [_late(values[operand.node], operand.delay) for operand in node.operands], 2)
        frames, layer = x.shape[:2], self.layer(node)
        if layer is not None:
            over_time = isinstance(node, ir.Neuron | ir.Delay | Cell)
            x = layer(x if over_time else x.flatten(0, 1))
        return x.reshape(*frames, *node.shape)

    def _loop(
        self, segment: Sequence[ir.Node], values: Mapping[str, Tensor], steps: int, batch: int
    ) -> dict[str, Tensor]:
        """Step a loop through time."""
        made: dict[str, list[Tensor]] = {node.name: [] for node in segment}
        arrived: dict[str, list[Tensor]] = {node.name: [] for node in segment}
        states: dict[str, State] = {}
        cells: dict[str, States] = {}
        like = next(iter(values.values()))

        def at(name: str, shape: tuple[int, ...], t: int) -> Tensor:
            if t < 0:
                return like.new_zeros(batch, *shape)
            return made[name][t] if name in made else values[name][t]

        for t in range(steps):
            for node in segment:
                parts = [at(s.node, self._by_name[s.node].shape, t - s.delay) for s in node.operands]
                x, layer = _combined(node, parts, 1), self.layer(node)
                arrived[node.name].append(x)
                if isinstance(layer, Population):
                    state = states.setdefault(node.name, layer.rest(x))
                    made[node.name].append(layer.step(x, state))
                elif isinstance(layer, CellLayer):
                    if t == 0:
                        cells[node.name] = layer.rest(x)
                    made[node.name].append(layer.step(x, cells[node.name]))
                elif isinstance(layer, _Delay):
                    made[node.name].append(layer(torch.stack(arrived[node.name]))[-1])
                else:
                    made[node.name].append((x if layer is None else layer(x)).reshape(batch, *node.shape))
        return {name: torch.stack(outputs) for name, outputs in made.items()}


def _key(name: str) -> str:
    return name.replace(".", "/")


def _late(x: Tensor, steps: int) -> Tensor:
    if not steps:
        return x
    return torch.cat([torch.zeros_like(x[:steps]), x[: max(0, len(x) - steps)]])


def _combined(node: ir.Node, parts: Sequence[Tensor], leading: int) -> Tensor:
    if node.combine == "flat":
        return torch.cat([part.flatten(leading) for part in parts], leading)
    if isinstance(node, ir.Concat):
        return torch.cat(list(parts), leading)
    first, *others = parts
    for other in others:
        first = first + other
    return first


class _Weights(NodeLayer):
    learned = ("weight", "bias")
    weight: Tensor
    bias: Tensor | None

    def __init__(self, node: ir.Linear | ir.Conv) -> None:
        super().__init__(node)
        self.hold(weight=node.weight, bias=node.bias)

    def forward(self, x: Tensor) -> Tensor:
        node = self.node
        if isinstance(node, ir.Linear):
            return functional.linear(x, self.weight, self.bias)
        convolve: Any = functional.conv1d if len(node.stride) == 1 else functional.conv2d
        pads = [before for before, _ in node.padding]
        if any(before != after for before, after in node.padding):
            x, pads = functional.pad(x, pads_of(node.padding)), [0] * len(pads)
        made: Tensor = convolve(x, self.weight, self.bias, node.stride, pads, node.dilation, node.groups)
        return made


class _Scale(NodeLayer):
    learned = ("scale",)
    scale: Tensor

    def __init__(self, node: ir.Scale) -> None:
        super().__init__(node)
        self.hold(scale=node.scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Norm(NodeLayer):
    def __init__(self, node: ir.Norm) -> None:
        super().__init__(node)
        shape = (-1, *(1,) * (len(node.shape) - 1)) if node.axis == 0 else (-1,)
        mean = np.zeros(len(node.scale)) if node.mean is None else node.mean
        arrays = {"scale": node.scale, "shift": node.shift, "mean": mean}
        self.hold(**{name: np.asarray(array, np.float64).reshape(shape) for name, array in arrays.items()})

    def forward(self, x: Tensor) -> Tensor:
        scale, shift, mean = (self.get_buffer(name) for name in ("scale", "shift", "mean"))
        return (scale * (x.double() - mean) + shift).float()


class _Pool(NodeLayer):
    def forward(self, x: Tensor) -> Tensor:
        node = self.node
        if isinstance(node, ir.MaxPool):
            pool: Any = functional.max_pool1d if len(node.kernel) == 1 else functional.max_pool2d
            padded = functional.pad(x, pads_of(node.padding), value=-torch.inf)
            made: Tensor = pool(padded, node.kernel, node.stride)
            return made
        padded = functional.pad(x, pads_of(node.padding))
        sums: Tensor = functional.avg_pool2d(padded, node.kernel, node.stride, divisor_override=1) / node.divisor
        return sums


class _Gather(NodeLayer):
    def __init__(self, node: ir.Gather) -> None:
        super().__init__(node)
        places = node.indices.reshape(-1)
        self.hold(places=np.where(places < 0, 0, places), none=places < 0)

    def forward(self, x: Tensor) -> Tensor:
        gathered = x.flatten(1)[:, self.get_buffer("places")]
        return gathered.masked_fill(self.get_buffer("none"), 0.0)


class _Product(NodeLayer):
    node: ir.Product

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.node.operand_shapes
        size = math.prod(left)
        a, b = x[:, :size].reshape(-1, *left), x[:, size:].reshape(-1, *right)
        return a @ b if self.node.matrices else a * b


class _Delay(NodeLayer):
    """Delay values ``[T, B, *shape]``."""

    def __init__(self, node: ir.Delay) -> None:
        super().__init__(node)
        self.register_buffer("steps", torch.from_numpy(node.steps), persistent=False)
        self._delays = [int(delay) for delay in np.unique(node.steps)]

    def forward(self, x: Tensor) -> Tensor:
        steps, total = self.get_buffer("steps"), torch.zeros_like(x)
        for delay in self._delays:
            total = torch.where(steps == delay, _late(x, delay), total)
        return total


class State:
    """A population's potential, current, last spikes, and how far its threshold is raised."""

    def __init__(self, v: Tensor) -> None:
        self.v = v
        self.i, self.s, self.a = (torch.zeros_like(v) for _ in range(3))


class Population(NodeLayer):
    """A population of neurons. threshold: a neuron fires at v >= it, also where its node says v > θ."""

    learned = ("threshold", "offset")
    threshold: Tensor | None
    offset: Tensor | None

    def __init__(self, node: ir.Neuron, surrogate: str | Surrogate) -> None:
        super().__init__(node)
        theta = node.threshold
        if theta is not None and node.compare == "gt" and not node.multi_spike:
            theta = np.nextafter(theta, np.float32(np.inf))
        self.hold(threshold=theta, **{name: getattr(node, name) for name in _STATE})
        synapse = node.synapse
        self.hold(i_decay=None if synapse is None else synapse.decay, i_gain=None if synapse is None else synapse.gain)
        self._derivative = surrogate_of(surrogate)
        adapts = node.adaptation
        self.hold(**{f"a_{name}": getattr(adapts, name, None) for name in ("decay", "jump", "start")})
        extra = (node.gain, node.offset, node.v_reset, node.v_min, node.v_start, synapse, adapts)
        alike = node.decay is not None and not node.decay.ndim and all(field is None for field in extra)
        # The scan knows one threshold; a soft reset of v > θ subtracts another float than v must reach.
        one_threshold = node.reset == "value" or (node.reset == "subtract" and node.compare == "ge")
        self._plain = alike and theta is not None and not node.multi_spike and one_threshold

    def restored(self) -> ir.Node:
        """Return the node with the present thresholds and offsets."""
        theta = as_array(self.threshold)
        if theta is not None and self.node.compare == "gt" and not self.node.multi_spike:
            theta = np.nextafter(theta, np.float32(-np.inf))
        return replace(cast(ir.Neuron, self.node), threshold=theta, offset=as_array(self.offset))

    def rest(self, x: Tensor) -> State:
        """Return the state before the first step, for currents ``[B, *shape]``."""
        state = State(self._started(x, "v_start"))
        state.i, state.a = self._started(x, "i_start"), self._started(x, "a_start")
        return state

    def _started(self, x: Tensor, name: str) -> Tensor:
        start = self._get(name)
        return torch.zeros_like(x) if start is None else torch.zeros_like(x) + start

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes, or potentials, ``[T, B, *shape]`` of currents of the same shape, from rest."""
        if self._plain and self.threshold is not None:
            soft = self.node.reset == "subtract"
            decay = self.get_buffer("decay")
            return lif_scan(x, self.threshold, decay, self._derivative, soft_reset=soft, detach_reset=False)
        state = self.rest(x[0])
        return torch.stack([self.step(current, state) for current in x.unbind(0)])

    def _get(self, name: str) -> Tensor | None:
        return cast("Tensor | None", getattr(self, name))

    def step(self, x: Tensor, state: State) -> Tensor:
        """Step currents ``[B, *shape]`` to outputs; changes ``state``."""
        node, theta = self.node, self.stored()
        over = None
        if theta is not None and node.decay is not None and node.reset == "snntorch_subtract_now":
            over = (state.v > theta).to(x.dtype)
        drive, decay = self._drive(x, state), self._get("decay")
        v = drive if decay is None else state.v * decay + drive
        if (offset := self._get("offset")) is not None:
            v = v + offset
        firing = self.threshold
        if theta is not None and firing is not None and node.adaptation is not None:
            state.a = state.a * self.get_buffer("a_decay") + self.get_buffer("a_jump") * state.s
            firing = level = theta + state.a
            if node.compare == "gt":  # the next float, which v >= it must reach
                firing = _next_float(level, 1)
            theta = level if node.adaptation.subtracts == "adapted" else theta
        if theta is not None and node.reset == "subtract_delayed":
            v = v - theta * state.s
        if theta is not None and node.reset == "value_delayed":
            v = self._to_value(v, state.s)
        if over is not None and theta is not None:
            v = v - theta * over
        if (low := self._get("v_min")) is not None:
            v = torch.maximum(v, low.expand_as(v))
        state.v = v
        if theta is None:
            return v
        s = self._fire(v, firing)
        state.s = s
        if node.decay is not None:
            state.v = self._after(v, s, theta, over)
        return s

    def stored(self) -> Tensor | None:
        """θ as the node holds it, which a soft reset subtracts."""
        if self.threshold is None or self.node.compare != "gt" or self.node.multi_spike:
            return self.threshold
        return _next_float(self.threshold, -1)

    def _after(self, v: Tensor, s: Tensor, theta: Tensor, over: Tensor | None) -> Tensor:
        match self.node.reset:
            case "value":
                return self._to_value(v, s)
            case "subtract":
                return v - theta * s
            case "snntorch_subtract_now" if over is not None:
                return v - theta * (s - over)
        return v

    def _to_value(self, v: Tensor, s: Tensor) -> Tensor:
        value = self._get("v_reset")
        to = torch.zeros_like(v) if value is None else value.expand_as(v)
        return torch.where(s > 0, to, v)

    def _drive(self, x: Tensor, state: State) -> Tensor:
        if self.node.synapse is not None:
            gain, decay = self._get("i_gain"), self.get_buffer("i_decay")
            arriving = x if gain is None else x * gain
            euler = self.node.synapse.rule == "euler"
            state.i = x = state.i * decay + arriving if euler else (state.i + arriving) * decay
        gain = self._get("gain")
        return x if gain is None else x * gain

    def _fire(self, v: Tensor, threshold: Tensor | None) -> Tensor:
        assert threshold is not None
        if self.node.multi_spike:
            return torch.clamp(rounded(v / threshold, self.node.rounding), min=0, max=self.node.cap)
        return spike(v, threshold, self._derivative)


def _next_float(x: Tensor, sign: int) -> Tensor:
    """Return the next float32 above (sign 1) or below (-1), for sizes from 2^-100 on, with the gradient of ``x``.

    In operators that the runtimes of torch.export have: a step of 1.25·2^-24·|x| is 0.6 to 1.25 units in the last
    place of x, and rounds to one.
    """
    return x + x.detach().abs() * (sign * 1.25 * 2.0**-24)


_LAYERS: dict[type[ir.Node], Any] = {
    ir.Linear: _Weights,
    ir.Conv: _Weights,
    ir.Scale: _Scale,
    ir.Norm: _Norm,
    ir.Pool: _Pool,
    ir.MaxPool: _Pool,
    ir.Gather: _Gather,
    ir.Product: _Product,
    ir.Delay: _Delay,
}
