"""Lower an IntegerGraph to a Plan: each linear path from a population, the input or a bias becomes a scan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import named
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.verilog.devices import GENERIC, Device
from stl_deploy.exporters.verilog.maps import (
    constant,
    input_shape_of,
    max_pool,
    require_unrolled,
    separable,
    uniform_delay,
    unrolled,
    words_of,
)
from stl_deploy.exporters.verilog.plan import (
    Entry,
    Lanes,
    Layout,
    Map,
    Pass,
    Plan,
    Pool,
    Reach,
    Scan,
    Widths,
    bits,
    forgets,
    layout_of,
    reach_of,
    signed_bits,
)
from stl_deploy.exporters.verilog.pools import pools_behind_neurons
from stl_deploy.graph.program import Delay, Neuron, Node, Output, Program, Reshape
from stl_deploy.integers.bounds import bounds
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.graph import (
    ConvNode,
    DenseNode,
    GainNode,
    GatherNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
    MaxPoolNode,
    ProductNode,
    SumPoolNode,
)
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, WIDE, IntegerNeuron, Ints
from stl_deploy.integers.simulate import evaluate

MOST_LANES = 64
MOST_WAYS = 256
"""So many ways into one layer are followed."""
MOST_DELAY = 255
LOWEST_WEIGHT_BITS = 2
_SPIKING = IntegerLIF | MaxPoolNode


@dataclass(frozen=True, eq=False)
class Way:
    """Nodes from an origin (None: a bias, ``values`` in torch's order of its node) to a layer, and steps of delay."""

    origin: Node | None
    nodes: tuple[Node, ...]
    delay: int
    values: NDArray[np.int64] | None = None


def make_plan(graph: IntegerGraph, lanes: int | None = None, device: Device = GENERIC) -> Plan:
    """Lower a graph for a device.

    Raises UnsupportedError for nodes that the engine cannot hold, InputError for wrong lanes.
    """
    if graph.accumulator is not WIDE:
        raise InputError(
            f"expected integers with the wide accumulator; found those of '{graph.accumulator.name}'; "
            "export the network again"
        )
    for node in graph.populations:
        if node.neuron.adaptation is not None:
            refuse(
                node,
                "adapting-threshold",
                "its threshold adapts; the engine holds fixed ones",
                "use a fixed threshold, or export to c or onnx",
            )
        if (least := int(node.neuron.threshold.min())) < 0:
            refuse(
                node,
                "threshold-not-positive",
                f"its least threshold is {least}; the engine holds thresholds from 0",
                "use thresholds of 0 or more, or export to c",
            )
    for other in graph.nodes:
        if isinstance(other, IntegerLIF | IntegerLI) and other.neuron.starts:
            reason, remedy = "its state does not start at 0", "start at 0, or export to c or onnx"
            refuse(other, "v-start", f"{reason}; the engine starts at 0", remedy)
        if isinstance(other, GatherNode | ProductNode) or (isinstance(other, DenseNode) and len(other.shape) > 1):
            refuse(other, "kind-not-taken", "the engine multiplies no signals, and rearranges none", "export to c")
    graph = pools_behind_neurons(graph)
    return replace(_Lowering(graph, check_lanes(graph, lanes)).plan(), device=device)


def too_late(program: Program) -> list[UnsupportedError]:
    """Return refusals of the nodes that read spikes or inputs more than `MOST_DELAY` steps late."""
    refused: list[UnsupportedError] = []
    late: dict[str, int] = {}
    for node in program.nodes:
        steps = max((late.get(source.node, 0) + source.delay for source in node.operands), default=0)
        if isinstance(node, Neuron | Output) and steps > MOST_DELAY:
            refused.append(_late(node.name, steps))
        if isinstance(node, Delay) and (node.steps == node.steps.min()).all():
            steps += int(node.steps.min())  # unequal delays are ways of their own
        late[node.name] = 0 if isinstance(node, Neuron) else steps
    return refused


def _late(node: str, steps: int) -> UnsupportedError:
    reason = f"it reads {steps} steps late: expected at most {MOST_DELAY}"
    return UnsupportedError(reason, node=node, slug="late", remedy="put neurons between, or shorten delays")


def check_lanes(graph: IntegerGraph, lanes: int | None) -> int:
    """Return the lanes, by default the largest power of two up to 8 that the largest layer fills; raise InputError."""
    largest = max(math.prod(node.shape) for node in graph.nodes if isinstance(node, IntegerLIF | IntegerLI))
    if lanes is None:
        return int(min(8, 2 ** (largest.bit_length() - 1)))
    top = min(MOST_LANES, largest)
    if not 1 <= lanes <= top or lanes & (lanes - 1):
        why = ", the largest layer" if top == largest else ""
        raise InputError(f"{named('lanes')}: expected a power of two up to {top}{why}; found {lanes}")
    return lanes


class _Lowering:
    def __init__(self, graph: IntegerGraph, lanes: int) -> None:
        self.graph, self.lanes, self.known = graph, lanes, bounds(graph)
        self.output = self._output()
        self.layouts = {node.name: self._layout(node) for node in self._layers()}
        self.pools = {pool.name: pool for pool in map(self._pool, self._layers()) if pool is not None}
        self.ways = {node.name: tuple(self._ways(node)) for node in self._layers()}
        self.weight_bits = self._weight_bits()
        self.biases: dict[str, NDArray[np.int64]] = {}

    def _output(self) -> Node:
        """Return the layer that emits: potentials themselves, or a layer of sums of its own."""
        out = self.graph.output
        node: Node = out
        while isinstance(node, IntegerOutput | Reshape) and len(node.operands) == 1 and not node.operands[0].delay:
            node = self.graph.by_name[node.operands[0].node]
        if isinstance(node, IntegerLI):
            return node
        return out

    def _layers(self) -> list[Node]:
        layers: list[Node] = [node for node in self.graph.nodes if isinstance(node, _SPIKING | IntegerLI)]
        return [*(node for node in layers if node is not self.output), self.output]  # what emits comes last

    def _layout(self, node: Node) -> Layout:
        return layout_of(node.shape, self.lanes, flat=not isinstance(node, _SPIKING))

    def _pool(self, node: Node) -> Pool | None:
        """Return a max pool of another population's spikes of the same step; None for another node."""
        to = self.layouts[node.name]
        if isinstance(node, MaxPoolNode):
            pooled = node.operands[0].node
            how = max_pool([node], self.layouts[pooled], to)
            if how is None:
                reason, remedy = "a window of it lies in the padding", "use less padding"
                refuse(node, "max-pool", reason, remedy)
            return Pool(node.name, to, pooled, how)
        if not isinstance(node, IntegerLIF) or not _ors(node):
            return None
        source, pools = node.operands, list[SumPoolNode]()
        while len(source) == 1 and not source[0].delay:
            before = self.graph.by_name[source[0].node]
            if isinstance(before, SumPoolNode):
                pools.insert(0, before)
            elif isinstance(before, IntegerLIF) and pools and before.neuron.cap == 1:
                how = max_pool(pools, self.layouts[before.name], to)
                return None if how is None else Pool(node.name, to, before.name, how)
            else:
                return None
            source = before.operands
        return None

    def _ways(self, layer: Node) -> Iterator[Way]:
        followed = 0

        def follow(node: Node, after: tuple[Node, ...], delay: int) -> Iterator[Way]:
            nonlocal followed
            followed += 1
            if delay > MOST_DELAY:
                raise _late(layer.name, delay)
            if followed > MOST_WAYS:
                reason = f"more than {MOST_WAYS} paths lead to it"
                remedy = "put neurons between, or shorten delays"
                refuse(layer, "ways", reason, remedy)
            if isinstance(node, _SPIKING | IntegerInput):
                yield Way(node, after, delay)
                return
            if isinstance(node, IntegerLI):
                reason = f"it adds the potentials of '{node.name}' to others, or reads them late"
                remedy = "read one node without threshold, at once"
                refuse(layer, "potentials", reason, remedy)
            if isinstance(node, DenseNode) and (node.delay is not None or node.shift or node.enlarged):
                reason = "its synapses have delays of their own, or its sums are shifted, as those of .net files"
                refuse(node, "synaptic-delay", reason, "use delay nodes")
            if isinstance(node, DenseNode | ConvNode) and node.bias is not None:
                bias = np.broadcast_to(node.bias.reshape(-1, *(1,) * (len(node.shape) - 1)), node.shape)
                yield Way(None, after, delay, bias.astype(np.int64).reshape(-1))
            same = uniform_delay(node)
            ways = after if same is not None else (node, *after)
            for source in node.operands:
                yield from follow(self.graph.by_name[source.node], ways, delay + source.delay + (same or 0))

        for source in layer.operands:
            yield from follow(self.graph.by_name[source.node], (), source.delay)

    def _weight_bits(self) -> int:
        weights = [node.weight for node in self.graph.nodes if isinstance(node, DenseNode | ConvNode | GainNode)]
        return max(LOWEST_WEIGHT_BITS, *(signed_bits(weight.astype(np.int64)) for weight in weights), 2)

    def plan(self) -> Plan:
        """Return everything in order, and the widths that it needs."""
        scans = {node.name: [] if node.name in self.pools else self._scans(node) for node in self._layers()}
        reaches = {node.name: reach_of(node, self.known) for node in self._layers()}
        every = [scan for of_layer in scans.values() for scan in of_layer]
        widths = self._widths(every, reaches)
        entries: list[Entry] = []
        for node in self._layers():
            entries += scans[node.name]
            entries.append(self.pools[node.name] if node.name in self.pools else self._pass(node, widths))
        plan = Plan(
            graph=self.graph,
            lanes=self.lanes,
            entries=tuple(entries),
            widths=widths,
            kept_steps=1 + max((scan.delay for scan in every if self._is_population(scan.source)), default=0),
            kept_inputs=1 + max((scan.delay for scan in every if scan.source == self.graph.input.name), default=0),
            longest=max([1, *(scan.delay for scan in every)]),
        )
        return self._placed(plan)

    def _is_population(self, name: str | None) -> bool:
        return name is not None and isinstance(self.graph.by_name[name], _SPIKING)

    def _placed(self, plan: Plan) -> Plan:
        at = frame = 0
        states, values, spikes = dict[str, int](), dict[str, int](), dict[str, int]()
        for layer in plan.layers:
            if isinstance(layer, Pass):
                states[layer.name] = at
                at += layer.layout.words
                if layer.filtered:
                    values[layer.name] = at
                    at += layer.layout.words
            if layer.spiking:
                spikes[layer.name] = frame
                frame += layer.layout.words
        return replace(plan, states=states, values=values, spikes=spikes, state_words=at, frame=max(1, frame))

    def _scans(self, layer: Node) -> list[Scan]:
        to = self.layouts[layer.name]
        made_scans: list[Scan] = []
        biases: dict[int, Any] = {}
        for way in self.ways[layer.name]:
            if way.origin is None:
                assert way.values is not None
                for late, values in enumerate(self._response(way.nodes, way.values[None], layer)):
                    place = way.delay + late
                    biases[place] = (
                        biases.get(place, np.zeros(to.channels * to.height * to.width, np.int64)) + values[0]
                    )
                continue
            made_scans += [Scan(way.origin.name, delay, layer.name, made) for delay, made in self._maps(way, layer)]
        own = getattr(layer, "bias", None)
        filtered = not forgets(_decays(layer)[1])
        if own is not None:
            values = np.broadcast_to(own, layer.shape).astype(np.int64).reshape(-1)
            if filtered:
                made_scans += [Scan(None, 0, layer.name, made, True) for made in constant(values, to, self.weight_bits)]
            else:
                biases[0] = biases.get(0, 0) + values
        if not filtered and (of_pass := biases.pop(0, None)) is not None:
            self.biases[layer.name] = of_pass
        for delay, values in biases.items():
            made_scans += [Scan(None, delay, layer.name, made) for made in constant(values, to, self.weight_bits)]
        return [scan for scan in made_scans if any(scan.map.rows) and any(scan.map.columns)]

    def _maps(self, way: Way, layer: Node) -> Iterator[tuple[int, Map]]:
        assert way.origin is not None
        to, spikes = self.layouts[layer.name], isinstance(way.origin, _SPIKING)
        source = self.layouts[way.origin.name] if spikes else layout_of(way.origin.shape, self.lanes)
        made = separable(way.nodes, source, to, spikes=spikes)
        if made is not None:
            yield way.delay, made
            return
        count = math.prod(way.origin.shape)
        require_unrolled(way.nodes, count, layer)
        for late, matrix in enumerate(self._response(way.nodes, np.eye(count, dtype=np.int64), layer)):
            for part in unrolled(matrix, source if spikes else None, to, self.weight_bits):
                yield way.delay + late, part

    def _response(self, nodes: Sequence[Node], given: NDArray[np.int64], layer: Node) -> list[NDArray[np.int64]]:
        """Return a layer's input ``[B, to]`` 0, 1, … steps after ``given`` ``[B, from]`` enters the first node."""
        steps = require_unrolled(nodes, len(given), layer)
        shape = input_shape_of(nodes[0]) if nodes else layer.shape
        values: NDArray[np.int64] = np.zeros((steps, *given.shape), np.int32)
        values[0] = given
        values = values.reshape(steps, len(given), *shape)
        for node in nodes:
            plain = replace(node, bias=None) if isinstance(node, DenseNode | ConvNode) else node
            values = evaluate(plain, [values], self.known, WIDE).astype(np.int64)
        return [part.astype(np.int64) for part in values.reshape(steps, len(given), -1)]

    def _widths(self, scans: Sequence[Scan], reaches: dict[str, Reach]) -> Widths:
        populations = self.graph.populations
        threshold = bits(max((int(node.neuron.threshold.max()) for node in populations), default=1))
        values = [
            v for node in populations for v in (node.neuron.drop, node.neuron.v_reset) if v is not None and v.any()
        ]
        value = max((signed_bits(v.astype(np.int64)) for v in values), default=0)
        bias = max((signed_bits(values) for values in self.biases.values() if values.any()), default=0)
        keeps = any(not isinstance(decay, int) for node in self._layers() for decay in _decays(node))
        source = self.graph.input
        magnitude = max(-source.low, source.high)
        shift = max((scan.map.shift for scan in scans), default=0)
        most = bits(max((node.neuron.cap for node in populations), default=1))
        factor = max(
            (scan.map.shift + (bits(magnitude) if scan.source == source.name else most) for scan in scans), default=1
        )
        clip = any(reach.clips for reach in reaches.values())
        farthest = max(reach.farthest for reach in reaches.values())
        state = 32 if clip else 1 + bits(farthest)
        potentials = isinstance(self.output, IntegerLI)
        widest = max(threshold + 1, value + 1, bias + 1, self.weight_bits + 1)
        state = max(state, widest + STATE_SHIFT)
        total = threshold + value + (26 if keeps else 0) + bias
        return Widths(
            weight=self.weight_bits,
            state=state,
            clip=clip,
            threshold=threshold,
            value=value,
            bias=bias,
            keeps=keeps,
            loads=-(-total // self.weight_bits),
            input=1 + bits(magnitude),
            output=state if potentials else max(2, signed_bits(self.known[self.output.name].sums)),
            output_shift=0 if potentials else STATE_SHIFT,
            shift=bits(shift),
            factor=1 + factor,
            spikes=most,
        )

    def _pass(self, node: Node, widths: Widths) -> Pass:
        layout = self.layouts[node.name]
        v_decay, i_decay = _decays(node)
        neuron = node.neuron if isinstance(node, IntegerLIF) else None
        soft = neuron is not None and neuron.reset.startswith("subtract")
        takes_nothing = neuron is None or neuron.drop is None or not neuron.drop.any()
        parameters = self._parameters(node, neuron, layout, widths)
        repeat = layout.words
        for period in (1, layout.groups):
            if layout.words % period == 0:
                parts = parameters.reshape(layout.words // period, -1)
                if (parts == parts[0]).all():
                    repeat = period
                    break
        return Pass(
            name=node.name,
            layout=layout,
            parameters=parameters[: repeat * widths.loads],
            repeat=repeat,
            filtered=not forgets(i_decay),
            spiking=neuron is not None,
            emits=node is self.output,
            soft=soft,
            late=neuron is not None and neuron.delayed_reset and not (soft and takes_nothing),
            most=1 if neuron is None else neuron.cap,
            keep=_kept(v_decay),
            filter_keep=_kept(i_decay),
            by_neuron=widths.keeps,
        )

    def _parameters(self, node: Node, neuron: IntegerNeuron | None, layout: Layout, widths: Widths) -> Lanes:
        """Return bias, threshold, reset value and kept fractions of each neuron, in words of weights."""

        def spread(values: int | Ints | None) -> Lanes:
            whole = np.broadcast_to(0 if values is None else values, node.shape)
            return layout.spread(whole.astype(np.int64).reshape(-1))

        packed = spread(0 if neuron is None else neuron.threshold) << widths.bias
        at = widths.bias + widths.threshold
        if widths.value:
            given = None if neuron is None else neuron.drop if neuron.drop is not None else neuron.v_reset
            packed |= (spread(given) & ((1 << widths.value) - 1)) << at
            at += widths.value
        if widths.keeps:
            v_decay, i_decay = _decays(node)
            packed |= (DECAY_ONE - spread(v_decay)) << at
            packed |= (DECAY_ONE - spread(i_decay)) << (at + 13)
        if node.name in self.biases:
            packed |= layout.spread(self.biases[node.name]) & ((1 << widths.bias) - 1)
        return words_of(packed, widths.weight, widths.loads)


def _ors(node: IntegerLIF) -> bool:
    """Return whether a neuron fires exactly at any input spike of a step, regardless of earlier ones."""
    neuron = node.neuron
    puts = neuron.drop is not None or neuron.v_reset is not None or neuron.delayed_reset or neuron.threshold.any()
    return node.bias is None and not puts and all(forgets(decay) for decay in (neuron.v_decay, neuron.i_decay))


def _kept(decay: int | Ints) -> int:
    return DECAY_ONE - decay if isinstance(decay, int) else 0


def _decays(node: Node) -> tuple[int | Ints, int | Ints]:
    """Return v's and u's decays; an output's sums begin anew in every step."""
    if isinstance(node, IntegerLIF):
        return node.neuron.v_decay, node.neuron.i_decay
    if isinstance(node, IntegerLI):
        return node.v_decay, node.i_decay
    return DECAY_ONE, DECAY_ONE
