"""From an `IntegerGraph` to what the C program does in one step, in order, and the memory it takes.

Values stand channels last: an image (C, H, W) as H·W rows of C. ``order`` of a buffer says which torch position each of
its places holds; a flatten then moves nothing, for the weights behind it are put in that order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.memory import Buffer, Share, Table, narrowest, table_type
from stl_deploy.exporters.c.names import identifiers, in_comment
from stl_deploy.exporters.c.rule import Rule, drive_bounds, kept, kept_table, potential_bounds
from stl_deploy.exporters.integers.bounds import bounds
from stl_deploy.exporters.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerNode,
    IntegerOutput,
    IntegratorNode,
    PopulationNode,
    ReshapeNode,
    SumPoolNode,
    Weighted,
)
from stl_deploy.exporters.integers.net import DECAY_ONE, STATE_TOP, IntegerNeuron, Ints
from stl_deploy.graph.program import Shape, Source

SUM_LIMIT = 2**24
"""64 times a sum, and what v and a bias add, then fit in 32 bits."""
CONV_LIMIT = 2**23
"""Lava's convolutions wrap past it; refused here."""

Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Value:
    """Where a node's values stand: a C expression, its type, whether they are all 0 or 1, and their order."""

    at: str
    ctype: str
    binary: bool
    order: Order


@dataclass(frozen=True, eq=False)
class Step:
    """One statement (or loop) of net_step: its kind, which the template knows, and what it needs."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Recorded:
    """Where a population's spikes stand in a recording build's ``net_spikes``, and in which order."""

    node: str
    shape: Shape
    offset: int
    order: tuple[int, ...]


@dataclass
class Plan:
    """Everything the templates read."""

    graph: IntegerGraph
    steps: list[Step] = field(default_factory=list)
    last: list[Step] = field(default_factory=list)
    shares: dict[str, Share] = field(default_factory=dict)
    recorded: list[Recorded] = field(default_factory=list)
    rules: dict[Rule, str] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    """Sums of the layer at work: the most elements of each type."""
    rows: int = 0
    """The longest row of spikes that is pooled at once."""

    @property
    def tables(self) -> list[Table]:
        """All of flash, in order."""
        return [table for share in self.shares.values() for table in share.tables]

    @property
    def buffers(self) -> list[Buffer]:
        """All of RAM but what layers share, in order."""
        return [buffer for share in self.shares.values() for buffer in share.buffers]

    @property
    def shared_ram(self) -> int:
        """Bytes of RAM that all layers use in turn."""
        widths = {"int16_t": 2, "int32_t": 4}
        return max((widths[ctype] * count for ctype, count in self.sums.items()), default=0) + self.rows

    @property
    def flash(self) -> int:
        """Bytes of constants; code comes on top."""
        return sum(share.flash for share in self.shares.values())

    @property
    def ram(self) -> int:
        """Bytes of buffers; the stack comes on top."""
        return sum(share.ram for share in self.shares.values()) + self.shared_ram

    def uses(self, kind: str, *forms: Any) -> bool:
        """Whether a step of this kind and form is there."""
        return any(step.kind == kind and tuple(step.fields.get("form", ())) == forms for step in self.steps)


def make_plan(graph: IntegerGraph) -> Plan:
    """Lay a graph out; raises UnsupportedError (node, reason) where sums do not fit in 32 bits."""
    return _Planner(_with_sums(graph)).plan()


def channels_last(shape: Shape) -> Order:
    """Torch position of each place of an image stored channels last."""
    positions = np.arange(math.prod(shape)).reshape(shape)
    return np.moveaxis(positions, 0, -1).reshape(-1)


def _with_sums(graph: IntegerGraph) -> IntegerGraph:
    """Nodes that read several sources, other than those that add anyway, read one that adds them."""
    nodes: list[IntegerNode] = []
    for node in graph.nodes:
        if len(node.sources) > 1 and not isinstance(node, PopulationNode | IntegratorNode | IntegerOutput):
            shape = graph.by_name[node.sources[0].node].shape
            total = ReshapeNode(name=f"{node.name}.in", shape=shape, sources=node.sources, input_shape=shape)
            nodes.append(total)
            node = replace(node, sources=(Source(total.name),))
        nodes.append(node)
    return IntegerGraph(tuple(nodes))


class _Planner:
    def __init__(self, graph: IntegerGraph) -> None:
        self.graph, self.known = graph, bounds(graph)
        self.ids = identifiers(node.name for node in graph.nodes)
        self.made = Plan(graph)
        self.values: dict[str, Value] = {}
        self.place = {node.name: i for i, node in enumerate(graph.nodes)}
        self.readers: dict[str, list[tuple[IntegerNode, Source]]] = {node.name: [] for node in graph.nodes}
        for node in graph.nodes:
            for source in node.sources:
                self.readers[source.node].append((node, source))
        self.fused: set[str] = set()
        self._check()

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            if self._waits(node) or node.name in self.fused:
                continue
            match node:
                case IntegerInput():
                    self._input(node)
                case DenseNode() | ConvNode() | GainNode():
                    self._own_sums(node)
                case SumPoolNode():
                    self._sum_pool(node)
                case ReshapeNode():
                    self._reshape(node)
                case DelayNode():
                    self._delay(node)
                case PopulationNode():
                    self._population(node)
                case IntegratorNode():
                    self._integrator(node)
                case IntegerOutput():
                    self._output(node)
        return self.made

    # What is asked of the graph

    def _check(self) -> None:
        for node in self.graph.nodes:
            known = self.known[node.name]
            reach = max(-known.sums[0], known.sums[1], -known.values[0], known.values[1])
            limit = CONV_LIMIT if isinstance(node, ConvNode) else SUM_LIMIT
            if reach >= limit:
                reason = f"its sums may reach {reach:,}, beyond the {limit:,} that fit"
                remedy = "use fewer input levels (a coarser input grid), or smaller fan-in"
                raise UnsupportedError(reason, node=node.name, slug="sums-too-large", remedy=remedy)

    def _delayed(self, name: str) -> bool:
        """Whether a node's values are read a step later, be it in another shape."""
        return any(
            source.delay
            or (isinstance(reader, ReshapeNode) and len(reader.sources) == 1 and self._delayed(reader.name))
            for reader, source in self.readers[name]
        )

    def _only_reader(self, node: IntegerNode) -> IntegerNode | None:
        """Who alone reads a node in the same step."""
        readers = self.readers[node.name]
        return readers[0][0] if len(readers) == 1 and not readers[0][1].delay else None

    def _waits(self, node: IntegerNode) -> bool:
        """Whether a layer of weights is added up by its only reader."""
        reader = self._only_reader(node)
        return isinstance(node, Weighted) and isinstance(reader, PopulationNode | IntegratorNode | IntegerOutput)

    # What is put into the plan

    def _share(self, node: IntegerNode) -> Share:
        if node.name not in self.made.shares:
            shape = " x ".join(str(n) for n in node.shape)
            kind = _KINDS[type(node)]
            self.made.shares[node.name] = Share(in_comment(node.name), f"{kind}, {shape}")
        return self.made.shares[node.name]

    def _do(self, kind: str, **fields: Any) -> None:
        self.made.steps.append(Step(kind, fields))

    def _head(self, node: IntegerNode) -> None:
        share = self._share(node)
        self._do("head", node=share.node, what=share.what)

    def _table(self, node: IntegerNode, what: str, values: NDArray[Any], comment: str, ctype: str = "") -> Table:
        flat = np.ascontiguousarray(values).reshape(-1)
        table = Table(f"{self.ids[node.name]}_{what}", ctype or table_type(flat), flat, comment)
        self._share(node).tables.append(table)
        return table

    def _buffer(self, node: IntegerNode, what: str, ctype: str, count: int, comment: str, lasts: bool = True) -> str:
        name = f"{self.ids[node.name]}_{what}"
        self._share(node).buffers.append(Buffer(name, ctype, count, comment, lasts))
        return name

    def _read(self, reader: IntegerNode, source: Source) -> Value:
        """A source's values, of this step or of the one before."""
        if not source.delay:
            return self.values[source.node]
        node = self.graph.by_name[source.node]
        if source.node in self.values:  # already written in this step: keep what was there
            value = self.values[source.node]
            name = f"{self.ids[source.node]}_before"
            if not any(buffer.name == name for buffer in self._share(node).buffers):
                self._buffer(node, "before", value.ctype, math.prod(node.shape), "of the step before")
                self.made.last.append(
                    Step("keep", {"to": name, "from_": value.at, "count": math.prod(node.shape), "ctype": value.ctype})
                )
            return replace(value, at=name)
        return self._promised(node)

    def _promised(self, node: IntegerNode) -> Value:
        """Where a node that comes later in the step will stand; until then it holds the step before."""
        if isinstance(node, PopulationNode):
            return Value(f"{self.ids[node.name]}_spikes", "uint8_t", True, channels_last(node.shape))
        if isinstance(node, ReshapeNode):
            inner = node.sources[0]
            return self._promised(self.graph.by_name[inner.node]) if len(node.sources) == 1 else self._own(node)
        return self._own(node)

    def _own(self, node: IntegerNode) -> Value:
        ctype = self._type(node)
        return Value(f"{self.ids[node.name]}_values", ctype, False, channels_last(node.shape))

    def _type(self, node: IntegerNode) -> str:
        if isinstance(node, Weighted):
            return narrowest(self.known[node.name].values, "int16_t", "int32_t")
        return narrowest(self.known[node.name].values)

    def _in_order(self, node: IntegerNode, value: Value, order: Order) -> Value:
        """The values in another order, moved if need be."""
        if np.array_equal(value.order, order):
            return value
        inverse = np.empty(len(order), np.int64)
        inverse[value.order] = np.arange(len(order))
        number = sum(step.kind == "reorder" for step in self.made.steps)
        table = self._table(node, f"order_{number}", inverse[order], "where each value comes from")
        name = self._buffer(node, f"moved_{number}", value.ctype, len(order), "in the order of channels last", False)
        self._do(
            "reorder", to=name, from_=value.at, table=table.name, count=len(order), form=(value.ctype, table.ctype)
        )
        return Value(name, value.ctype, value.binary, order)

    def _input(self, node: IntegerInput) -> None:
        self._head(node)
        order = channels_last(node.shape)
        ctype = narrowest((node.low, node.high))
        count = len(order)
        name = self._buffer(node, "values", ctype, count, "channels last", False)
        channels = node.shape[0] if len(node.shape) > 1 else 1
        self._do(
            "input", to=name, ctype=ctype, channels=channels, positions=count // channels, low=node.low, high=node.high
        )
        self.values[node.name] = Value(name, ctype, node.low >= 0 and node.high <= 1, order)

    def _accumulate(self, consumer: IntegerNode, sums: str, ctype: str, order: Order, into: IntegerNode) -> None:
        """Add every source of ``consumer`` to ``sums``, which hold their start already."""
        for source in consumer.sources:
            node = self.graph.by_name[source.node]
            if isinstance(node, Weighted) and self._waits(node):
                self._weights(node, sums, ctype, order)
            else:
                value = self._in_order(into, self._read(consumer, source), order)
                self._do("add", sums=sums, from_=value.at, count=len(order), form=(value.ctype, ctype))

    def _weights(self, node: Weighted, sums: str, ctype: str, order: Order) -> None:
        """Add what a layer of weights makes of its source."""
        value = self._read(node, node.sources[0])
        share = self._share(node)
        shape = " x ".join(str(n) for n in node.weight.shape)
        given = "spikes" if value.binary else value.ctype
        if isinstance(node, DenseNode):
            weight = node.weight[order][:, value.order].T
            table = self._table(node, "weight", weight, f"{shape}, by input", "int8_t")
            share.synops = node.weight.size
            ins, outs = weight.shape
            self._do("dense", sums=sums, from_=value.at, weight=table.name, ins=ins, outs=outs, form=(given, ctype))
        elif isinstance(node, GainNode):
            full = np.broadcast_to(node.weight, node.shape).reshape(-1)[order]
            count = len(full)
            value = self._in_order(node, value, order)
            row = node.shape[0] if len(node.shape) > 1 else count
            if (full.reshape(-1, row) == full[:row]).all():
                full = full[:row]
            table = self._table(node, "weight", full, shape, "int8_t")
            share.synops = count
            self._do(
                "gain",
                sums=sums,
                from_=value.at,
                weight=table.name,
                row=len(full),
                rows=count // len(full),
                form=(value.ctype, ctype),
            )
        else:
            self._conv(node, value, sums, ctype, order)

    def _conv(self, node: ConvNode, value: Value, sums: str, ctype: str, order: Order) -> None:
        value = self._in_order(node, value, channels_last(node.input_shape))
        assert np.array_equal(order, channels_last(node.shape))
        simple = node.stride == (1, 1) and node.dilation == (1, 1) and node.groups == 1
        outs, ins, height, width = node.weight.shape
        grouped = node.weight.reshape(node.groups, outs // node.groups, ins, height, width)
        by_input = grouped.transpose(0, 2, 3, 4, 1)
        if simple:
            by_input = by_input[:, :, :, ::-1]
        shape = " x ".join(str(n) for n in node.weight.shape)
        last = ", columns last to first" if simple else ""
        table = self._table(node, "weight", by_input, f"{shape}, by input channel{last}", "int8_t")
        fan_out = conv_fan_out(node)
        self._share(node).synops = int(fan_out.sum()) * node.input_shape[0]
        _, out_height, out_width = _image(node.shape)
        self._do(
            "conv" if simple else "conv_any",
            sums=sums,
            from_=value.at,
            weight=table.name,
            layer=f"{self.ids[node.name]}_shape",
            numbers={
                "channels": node.input_shape[0],
                "height": node.input_shape[1],
                "width": node.input_shape[2],
                "out_channels": outs,
                "out_height": out_height,
                "out_width": out_width,
                "kernel_height": height,
                "kernel_width": width,
                "top": node.padding[0][0],
                "left": node.padding[1][0],
                "stride_rows": node.stride[0],
                "stride_columns": node.stride[1],
                "dilation_rows": node.dilation[0],
                "dilation_columns": node.dilation[1],
                "groups": node.groups,
            },
            form=("spikes" if value.binary else value.ctype, ctype),
        )

    def _start(self, node: IntegerNode, sums: str, ctype: str, order: Order, bias: Ints | None) -> None:
        """Put what is there before anything arrives into ``sums``: the biases, or 0."""
        total = None if bias is None else np.broadcast_to(bias, node.shape).astype(np.int64)
        for source in node.sources:
            inner = self.graph.by_name[source.node]
            if isinstance(inner, DenseNode | ConvNode) and self._waits(inner) and inner.bias is not None:
                own = inner.bias.reshape(-1, *(1,) * (len(node.shape) - 1))
                total = (np.zeros(node.shape, np.int64) if total is None else total) + own
        count = len(order)
        if total is None or not total.any():
            self._do("clear", to=sums, count=count, ctype=ctype, form=(ctype,))
            return
        flat = total.reshape(-1)[order]
        row = node.shape[0] if len(node.shape) > 1 else count
        if (flat.reshape(-1, row) == flat[:row]).all():
            flat = flat[:row]
        table = self._table(node, "bias", flat, "added in every step", ctype)
        self._do("fill", to=sums, bias=table.name, row=len(flat), rows=count // len(flat), form=(ctype,), ctype=ctype)

    def _scratch(self, ctype: str, count: int) -> str:
        self.made.sums[ctype] = max(self.made.sums.get(ctype, 0), count)
        return "sums.s16" if ctype == "int16_t" else "sums.s32"

    def _own_sums(self, node: Weighted) -> None:
        """A layer of weights whose sums somebody else than a population reads: in a buffer of its own."""
        self._head(node)
        value = self._own(node)
        order = value.order if not isinstance(node, DenseNode) else channels_last(node.shape)
        name = self._buffer(node, "values", value.ctype, len(order), "sums", self._delayed(node.name))
        bias = None if isinstance(node, GainNode) or node.bias is None else node.bias
        if bias is not None:
            bias = bias.reshape(-1, *(1,) * (len(node.shape) - 1))
        self._start_own(node, name, value.ctype, order, bias)
        self._weights(node, name, value.ctype, order)
        self.values[node.name] = replace(value, order=order)

    def _start_own(self, node: IntegerNode, name: str, ctype: str, order: Order, bias: Ints | None) -> None:
        self._start(replace(node, sources=()), name, ctype, order, bias)

    def _sum_pool(self, node: SumPoolNode) -> None:
        if self._or_pooled(node):
            return
        self._head(node)
        value = self._in_order(node, self._read(node, node.sources[0]), channels_last(node.input_shape))
        made = self._own(node)
        count = len(made.order)
        name = self._buffer(node, "values", made.ctype, count, "sums", self._delayed(node.name))
        self._share(node).synops = count * math.prod(node.kernel)
        self._do(
            "sum_pool",
            to=name,
            from_=value.at,
            layer=f"{self.ids[node.name]}_shape",
            numbers=_pool_numbers(node),
            count=count,
            form=(value.ctype, made.ctype),
        )
        self.values[node.name] = made

    def _or_pooled(self, node: SumPoolNode) -> bool:
        """Whether the only reader fires at the first spike of a window, which needs no sums."""
        reader = self._only_reader(node)
        return reader is not None and _is_or(reader) and self._spikes_arrive(node)

    def _spikes_arrive(self, node: SumPoolNode) -> bool:
        source = node.sources[0]
        inner = self.graph.by_name[source.node]
        return not source.delay and isinstance(inner, PopulationNode)

    def _reshape(self, node: ReshapeNode) -> None:
        if len(node.sources) == 1:
            self.values[node.name] = self._read(node, node.sources[0])
            return
        self._head(node)
        made = self._own(node)
        name = self._buffer(node, "values", made.ctype, len(made.order), "sums", self._delayed(node.name))
        self._do("clear", to=name, count=len(made.order), ctype=made.ctype, form=(made.ctype,))
        self._accumulate(node, name, made.ctype, made.order, node)
        self.values[node.name] = made

    def _delay(self, node: DelayNode) -> None:
        self._head(node)
        value = self._in_order(node, self._read(node, node.sources[0]), channels_last(node.shape))
        count = len(value.order)
        steps = np.broadcast_to(node.steps, node.shape).reshape(-1)[value.order]
        length = int(steps.max()) + 1
        name = self._buffer(node, "values", value.ctype, count, "delayed", self._delayed(node.name))
        line = self._buffer(node, "line", value.ctype, count * length, f"the last {length} steps")
        now = self._buffer(node, "now", "int32_t", 1, "where this step stands in the line")
        same = int(steps[0]) if (steps == steps[0]).all() else None
        table = None if same is not None else self._table(node, "steps", steps, "steps of delay").name
        kind = "" if table is None else self._share(node).tables[-1].ctype
        self._do(
            "delay",
            to=name,
            from_=value.at,
            line=line,
            now=now,
            length=length,
            count=count,
            same=same,
            table=table,
            form=(value.ctype, kind),
        )
        self.values[node.name] = replace(value, at=name)

    def _drive(self, node: PopulationNode | IntegratorNode) -> tuple[str, str, Order, Ints | None, bool]:
        """Add up what arrives: (where, C type, order, what bias is still to be added, whether u can wrap)."""
        order = channels_last(node.shape)
        known = self.known[node.name]
        filtered = not (isinstance(node, PopulationNode) and _unfiltered(node.neuron)) and not (
            isinstance(node, IntegratorNode) and isinstance(node.i_decay, int) and node.i_decay == DECAY_ONE
        )
        decay = node.neuron.i_decay if isinstance(node, PopulationNode) else node.i_decay
        _, wraps = drive_bounds(known.sums, None, decay)
        early = None if filtered or wraps else node.bias
        if len(node.sources) == 1 and not self._waits(self.graph.by_name[node.sources[0].node]):
            value = self._in_order(node, self._read(node, node.sources[0]), order)
            return value.at, value.ctype, order, node.bias, wraps
        low, high = known.sums
        if early is not None:
            low, high = low + min(0, int(early.min())), high + max(0, int(early.max()))
        ctype = narrowest((low, high), "int16_t", "int32_t")
        sums = self._scratch(ctype, len(order))
        self._start(node, sums, ctype, order, early)
        self._accumulate(node, sums, ctype, order, node)
        return sums, ctype, order, None if early is not None else node.bias, wraps

    def _population(self, node: PopulationNode) -> None:
        pool = self.graph.by_name[node.sources[0].node]
        if _is_or(node) and isinstance(pool, SumPoolNode) and self._or_pooled(pool):
            self._or_pool(node, pool)
            return
        self._head(node)
        sums, ctype, order, bias, wraps = self._drive(node)
        late = node.neuron.reset.endswith("delayed")
        fused = None if late else self._fusable(node)
        values = self._neurons(node, node.neuron, sums, ctype, order, bias, wraps)
        count = len(order)
        record = self._record(node, order)
        if fused is None:
            name = self._spikes_of(node, count)
            self._do("neurons", **values, spikes=name, record=record)
            self.values[node.name] = Value(name, "uint8_t", True, order)
        else:
            self._fuse(node, fused, values, record)

    def _spikes_of(self, node: PopulationNode, count: int) -> str:
        lasts = self._delayed(node.name) or node.neuron.reset.endswith("delayed")
        return self._buffer(node, "spikes", "uint8_t", count, "1 where a neuron fired", lasts)

    def _record(self, node: IntegerNode, order: Order) -> int:
        offset = sum(math.prod(one.shape) for one in self.made.recorded)
        self.made.recorded.append(Recorded(node.name, node.shape, offset, tuple(int(i) for i in order)))
        return offset

    def _neurons(
        self,
        node: PopulationNode | IntegratorNode,
        neuron: IntegerNeuron,
        sums: str,
        ctype: str,
        order: Order,
        bias: Ints | None,
        wraps: bool,
    ) -> dict[str, Any]:
        """The row function, its rows, and the tables that it reads."""
        spikes = isinstance(node, PopulationNode)
        count = len(order)
        row = node.shape[0] if len(node.shape) > 1 else count
        tables: dict[str, tuple[str, bool]] = {}
        types: dict[str, str | None] = {}

        def table(what: str, values: Ints | None, comment: str, ctype: str = "") -> None:
            if values is None:
                types[what] = None
                return
            flat = np.broadcast_to(values, node.shape).reshape(-1)[order]
            by_neuron = not (flat.reshape(-1, row) == flat[:row]).all()
            made = self._table(node, what, flat if by_neuron else flat[:row], comment, ctype)
            tables[what] = (made.name, by_neuron)
            types[what] = made.ctype

        if kept(neuron.v_decay) == 0 and not neuron.reset.endswith("delayed"):
            neuron = replace(neuron, reset="value", drop=None, v_reset=None)  # nothing outlives the step
        low, high = self.known[node.name].sums
        drive, _ = drive_bounds((low, high), node.bias, neuron.i_decay)
        reach = potential_bounds(neuron, drive) if spikes else None
        clips = reach is None or max(-reach[0], reach[1]) >= STATE_TOP
        keeps = kept(neuron.v_decay)
        filtered = not _unfiltered(neuron)
        narrow = not clips and reach is not None and max(-reach[0], reach[1]) * DECAY_ONE < 2**31 and not filtered
        table("threshold", neuron.threshold if spikes else None, "a neuron fires above it")
        table("bias_v", bias, "added to v in every step")
        table("drop", neuron.drop, "what a spike takes off v")
        table("value", neuron.v_reset, "where a spike puts v")
        if keeps is None:
            table("keeps", np.asarray(kept_table(neuron.v_decay), np.int32), "of 4096, what v keeps", "int16_t")
        if filtered and kept(neuron.i_decay) is None:
            table("filter", np.asarray(kept_table(neuron.i_decay), np.int32), "of 4096, what u keeps", "int16_t")
        rule = Rule(
            sums=ctype,
            keeps=keeps,
            filter_keeps=kept(neuron.i_decay) if filtered else None,
            filtered=filtered,
            narrow=narrow,
            wraps=wraps,
            clips=clips,
            spikes=spikes,
            reset="value" if not spikes else neuron.reset,
            threshold=types["threshold"],
            bias=types["bias_v"],
            drop=types["drop"],
            value=types["value"],
        )
        states = []
        if rule.has_state or not spikes:
            states.append(self._buffer(node, "v", "int32_t", count, "potentials, in 64ths"))
        if filtered:
            states.append(self._buffer(node, "u", "int32_t", count, "filtered input, in 64ths"))
        function = self.made.rules.setdefault(rule, f"neurons_{len(self.made.rules) + 1}")
        ordered = [
            tables[what] for what in ("keeps", "filter", "threshold", "bias_v", "drop", "value") if what in tables
        ]
        return {
            "function": function,
            "sums": sums,
            "states": states,
            "tables": ordered,
            "row": row,
            "rows": count // row,
            "count": count,
            "rule": rule,
        }

    def _fusable(self, node: PopulationNode) -> tuple[SumPoolNode, PopulationNode] | None:
        """The max pooling that alone reads a population, over windows that share no neuron and lie inside."""
        pool = self._only_reader(node)
        if not isinstance(pool, SumPoolNode) or not self._or_pooled(pool):
            return None
        if pool.padding != ((0, 0), (0, 0)) or pool.kernel != pool.stride or len(node.shape) != 3:
            return None
        reader = self._only_reader(pool)
        assert isinstance(reader, PopulationNode)
        return pool, reader

    def _fuse(
        self, node: PopulationNode, fused: tuple[SumPoolNode, PopulationNode], values: dict[str, Any], record: int
    ) -> None:
        pool, reader = fused
        self.fused |= {pool.name, reader.name}
        channels, height, width = node.shape
        _, out_height, out_width = reader.shape
        order = channels_last(reader.shape)
        share = self._share(reader)
        share.what += f", largest of {pool.kernel[0]} x {pool.kernel[1]}"
        share.synops = len(order) * math.prod(pool.kernel)
        name = self._buffer(
            reader, "spikes", "uint8_t", len(order), "1 where a neuron fired", self._delayed(reader.name)
        )
        self.made.rows = max(self.made.rows, width * channels)
        self._do(
            "neurons_pooled",
            **values,
            to=name,
            record=record,
            pooled=share.node,
            count_out=len(order),
            height=height,
            width=width,
            channels=channels,
            kernel=pool.kernel,
            out_height=out_height,
            out_width=out_width,
            record_out=self._record(reader, order),
        )
        self.values[reader.name] = Value(name, "uint8_t", True, order)

    def _or_pool(self, node: PopulationNode, pool: SumPoolNode) -> None:
        self._head(node)
        value = self._in_order(pool, self._read(pool, pool.sources[0]), channels_last(pool.input_shape))
        order = channels_last(node.shape)
        share = self._share(node)
        share.what += f", largest of {pool.kernel[0]} x {pool.kernel[1]}"
        share.synops = len(order) * math.prod(pool.kernel)
        name = self._spikes_of(node, len(order))
        self._do(
            "or_pool",
            to=name,
            from_=value.at,
            layer=f"{self.ids[pool.name]}_shape",
            numbers=_pool_numbers(pool),
            count=len(order),
            record=self._record(node, order),
        )
        self.values[node.name] = Value(name, "uint8_t", True, order)

    def _integrator(self, node: IntegratorNode) -> None:
        self._head(node)
        sums, ctype, order, bias, wraps = self._drive(node)
        neuron = IntegerNeuron(v_decay=node.v_decay, threshold=np.zeros((), np.int32), i_decay=node.i_decay)
        values = self._neurons(node, neuron, sums, ctype, order, bias, wraps)
        self._do("neurons", **values, spikes=None, record=None)
        self.values[node.name] = Value(f"{self.ids[node.name]}_v", "int32_t", False, order)

    def _output(self, node: IntegerOutput) -> None:
        self._head(node)
        if len(node.sources) == 1 and not self._waits(self.graph.by_name[node.sources[0].node]):
            value = self._read(node, node.sources[0])
        else:
            order = channels_last(node.shape)
            inner = self.known[node.name].sums
            ctype = narrowest(inner, "int16_t", "int32_t")
            sums = self._scratch(ctype, len(order))
            self._start(node, sums, ctype, order, None)
            self._accumulate(node, sums, ctype, order, node)
            value = Value(sums, ctype, False, order)
        plain = np.array_equal(value.order, np.arange(len(value.order)))
        channels = node.shape[0] if len(node.shape) > 1 else 1
        if not plain:
            value = self._in_order(node, value, channels_last(node.shape))
        self._do(
            "output",
            from_=value.at,
            positions=len(value.order) // channels,
            channels=1 if plain else channels,
            count=len(value.order),
        )


_TABLES = ("keeps", "filter", "threshold", "bias_v", "drop", "value")
"""In the order of a row function's arguments."""
_KINDS: dict[type[IntegerNode], str] = {
    IntegerInput: "input",
    DenseNode: "dense",
    ConvNode: "convolution",
    GainNode: "gain",
    SumPoolNode: "sum pooling",
    ReshapeNode: "sum",
    DelayNode: "delay",
    PopulationNode: "neurons",
    IntegratorNode: "integrators",
    IntegerOutput: "output",
}


def _unfiltered(neuron: IntegerNeuron) -> bool:
    return isinstance(neuron.i_decay, int) and neuron.i_decay == DECAY_ONE


def _is_or(node: IntegerNode) -> bool:
    """Whether a population fires wherever anything above 0 arrives, and remembers nothing."""
    return (
        isinstance(node, PopulationNode)
        and node.bias is None
        and len(node.sources) == 1
        and isinstance(node.neuron.v_decay, int)
        and node.neuron.v_decay == DECAY_ONE
        and _unfiltered(node.neuron)
        and node.neuron.reset == "value"
        and not node.neuron.threshold.any()
    )


def _image(shape: Shape) -> tuple[int, int, int]:
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def _pool_numbers(node: SumPoolNode) -> dict[str, int]:
    return {
        "channels": node.shape[0],
        "height": node.input_shape[1],
        "width": node.input_shape[2],
        "out_height": node.shape[1],
        "out_width": node.shape[2],
        "kernel_height": node.kernel[0],
        "kernel_width": node.kernel[1],
        "top": node.padding[0][0],
        "left": node.padding[1][0],
        "stride_rows": node.stride[0],
        "stride_columns": node.stride[1],
    }


def conv_fan_out(node: ConvNode) -> NDArray[np.int64]:
    """Taps inside the output that each input position ``(H, W)`` reaches, of one channel."""
    _, out_height, out_width = _image(node.shape)
    ways = []
    for axis, size in ((0, out_height), (1, out_width)):
        reached = np.zeros(node.input_shape[1 + axis], np.int64)
        for tap in range(node.weight.shape[2 + axis]):
            at = np.arange(size) * node.stride[axis] - node.padding[axis][0] + tap * node.dilation[axis]
            np.add.at(reached, at[(at >= 0) & (at < len(reached))], 1)
        ways.append(reached)
    return np.outer(*ways) * (len(node.weight) // node.groups)
