"""Export a Program to ONNX: one step, or all of them in one call (neurons and loops in a Scan over time).

Opset 18 and IR 8 (ONNX 1.13): the oldest that have every operator used in its present form (GreaterOrEqual on
floats, Shape of some axes, Clip and Scan without their early quirks), so ONNX Runtime from 1.14 on, its web build and
most converters take the file. Nothing later than 18 is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from stl_deploy._util.remedies import did_you_mean
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.cells import cell_step
from stl_deploy.exporters.onnx.exact_sums import to_planes
from stl_deploy.exporters.onnx.int8 import to_int8
from stl_deploy.exporters.onnx.interface import Form, Interface, Precision, StateTensor
from stl_deploy.exporters.onnx.neurons import has_state, neuron_step
from stl_deploy.exporters.onnx.scope import Dims, Scope, floats
from stl_deploy.exporters.onnx.states import Past, State, States, choose, shift
from stl_deploy.exporters.onnx.storage import MAX_MODEL_BYTES, write_model
from stl_deploy.exporters.onnx.synapses import memoryless
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Delay, Floats, Input, Neuron, Node, Operand, Product, Program
from stl_deploy.graph.segments import is_loop, segments

OPSET = 18


IR_VERSION = 8


MOST_SCANS = 256
"""With more, one Scan takes all nodes: checking and loading a model takes time in proportion to its Scans squared."""


def export_onnx(
    program: Program,
    path: Path,
    *,
    form: Form = "sequence",
    precision: Precision = "float32",
    record: bool = True,
    provenance: Mapping[str, str] | None = None,
    external_above: int = MAX_MODEL_BYTES,
) -> tuple[Path, ...]:
    """Write ``program`` as ONNX, checked by onnx.checker in full mode; return the files written.

    Tensors have the names of their NIR nodes.

    Args:
        form: ``sequence``: ``[T, B, *shape]`` for each Input and Output node, T and B free. ``step``: one time step
            ``[B, *shape]``, every state an input ``state__<node>__<kind>`` and an output ``next__<node>__<kind>``.
        precision: Of the synapses. ``exact`` adds in float64 and rounds once, like ``run(..., double=True)``, for
            weights off the grid. ``int8`` stores 8-bit weights: the file computes `to_int8` of the Program. ``integer``
            multiplies spikes by 8-bit planes where that gives the bits of ``float32`` (see `exact_sums`).
        record: Add outputs ``spikes__<node>`` for every spiking node.
        provenance: Metadata to store (source file, its hash).
        external_above: Bytes of weights above which they go to a file beside the model.

    Raises:
        InputError: For an unknown form or precision, int8 without weights, ``integer`` without integer sums, or a
            folder that cannot be written.
        UnsupportedError: For a delay that is too long.
    """
    if form not in get_args(Form):
        close = did_you_mean(str(form), get_args(Form))
        raise InputError(f"expected an ONNX form, {' or '.join(get_args(Form))}; found {form!r}{close}")
    if precision not in get_args(Precision):
        close = did_you_mean(str(precision), get_args(Precision))
        raise InputError(f"expected an ONNX precision: {', '.join(get_args(Precision))}; found {precision!r}{close}")
    program, weights = to_int8(program) if precision == "int8" else (program, {})
    planes = to_planes(program) if precision == "integer" else {}
    scope = Scope(double=precision == "exact", int8=weights, planes=planes)
    model = _model(scope, program, form, precision, record, provenance or {})
    return write_model(model, scope.weights, path, external_above)


def _model(
    scope: Scope, program: Program, form: Form, precision: Precision, record: bool, provenance: Mapping[str, str]
) -> ModelProto:
    names = _reserve(scope, program)
    states = States(scope, lambda node, kind: f"state__{node}__{kind}", lambda node, kind: f"next__{node}__{kind}")
    if form == "sequence":
        values = sequence_nodes(scope, program, names)
    else:
        values = step_nodes(scope, program.nodes, states, {}, names)
    lead: Dims = ("T", "B") if form == "sequence" else ("B",)
    recorded = program.compared if record else ()
    inputs = [floats(names[node.name], (*lead, *node.shape)) for node in program.inputs]
    inputs += [floats(state.before, state.dims) for state in states]
    outputs = [floats(names[node.name], (*lead, *node.shape)) for node in (*program.outputs, *recorded)]
    outputs += [floats(state.after, state.dims) for state in states]
    between = _between(program.nodes, values, lead, {value.name for value in inputs + outputs})
    graph = scope.graph("stl-deploy", inputs, outputs, value_info=between)
    model = helper.make_model(
        graph,
        producer_name="stl-deploy",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    interface = Interface.now(
        form=form,
        precision=precision,
        dt=program.dt,
        inputs={node.name: names[node.name] for node in program.inputs},
        outputs={node.name: names[node.name] for node in program.outputs},
        spikes={node.name: names[node.name] for node in recorded},
        spiking=[node.name for node in program.compared],
        states=[StateTensor(node=s.node, tensor=s.before, next_tensor=s.after, start=s.start.tolist()) for s in states],
        provenance=dict(provenance),
    )
    model.producer_version = interface.version
    helper.set_model_props(model, interface.properties(program.metadata))
    return model


def _reserve(scope: Scope, program: Program) -> dict[str, str]:
    """Reserve the public tensor names, those of nodes, before anything else takes one."""
    names = {node.name: scope.values.fresh(node.name) for node in (*program.inputs, *program.outputs)}
    return names | {node.name: scope.values.fresh(f"spikes__{node.name}") for node in program.compared}


def _between(
    nodes: tuple[Node, ...], values: Mapping[str, str], lead: Dims, declared: set[str]
) -> list[ValueInfoProto]:
    """Return shapes of the nodes' outputs that are not the graph's, for viewers and shape inference."""
    shown = (node for node in nodes if node.name in values)
    shapes = {values[node.name]: node.shape for node in shown if values[node.name] not in declared}
    return [floats(name, (*lead, *shape)) for name, shape in shapes.items()]


def sequence_nodes(scope: Scope, program: Program, names: Mapping[str, str]) -> dict[str, str]:
    """Add ``program`` over a whole sequence; return the name of each node's output ``[T, B, *shape]``.

    names: how outputs shall be called, for inputs, spikes and Output nodes.
    """
    lead = scope.op("Shape", [names[program.inputs[0].name]], "steps_and_batch", start=0, end=2)
    builder = _Sequence(scope, names, lead)
    parts = segments(program)
    if sum(map(_is_scan, parts)) > MOST_SCANS:
        for node in program.inputs:
            builder.feed_forward(node)
        builder.loop([node for node in program.nodes if not isinstance(node, Input)], program, keeps_small=True)
        return builder.values
    for segment in parts:
        if is_loop(segment):
            builder.loop(segment, program)
        else:
            builder.feed_forward(segment[0])
    return builder.values


def _is_scan(segment: Sequence[Node]) -> bool:
    node = segment[0]
    return is_loop(segment) or isinstance(node, Cell) or (isinstance(node, Neuron) and has_state(node))


class _Sequence:
    def __init__(self, scope: Scope, names: Mapping[str, str], lead: str) -> None:
        self.values: dict[str, str] = {}
        self._scope, self._names, self._lead = scope, names, lead
        self._batch: str | None = None
        self._starts: dict[tuple[object, ...], str] = {}

    def feed_forward(self, node: Node) -> None:
        output = self._names.get(node.name)
        if isinstance(node, Input):
            self.values[node.name] = self._names[node.name]
            return
        x = together(self._scope, node, [self._arrive(node, source) for source in node.operands], axis=2)
        if isinstance(node, Cell):
            value = self._cell(node, x)
        elif isinstance(node, Neuron):
            value = self._neuron(node, x, output)
        elif isinstance(node, Delay):
            value = choose(self._scope, node, lambda steps: shift(self._scope, x, steps, f"{node.name}/{steps}"))
        else:
            value = memoryless(self._scope, node, x, self._lead, output)
        self.values[node.name] = value

    def loop(self, nodes: Sequence[Node], program: Program, *, keeps_small: bool = False) -> None:
        """Add nodes that are stepped together. keeps_small: see `Scope`."""
        inside = {node.name for node in nodes}
        edges = dict.fromkeys((node, source) for node in nodes for source in node.operands if source.node not in inside)
        outside = {source: self._arrive(node, source) for node, source in edges}
        body = Scope(self._scope, keeps_small=keeps_small)
        states = _body_states(body)
        given = {source: body.values.fresh(f"{source.node}/now") for source in outside}
        stepped = step_nodes(body, nodes, states, given, {})
        wanted = [
            node
            for node in nodes
            if node.name in self._names or any(reader.name not in inside for reader in program.readers[node.name])
        ]
        arriving = [(outside[source], given[source], program.by_name[source.node].shape) for source in outside]
        label = f"loop of {', '.join(node.name for node in nodes)}"[:100]
        self._scan(body, label, states, arriving, [(node, stepped[node.name]) for node in wanted])

    def _arrive(self, node: Node, source: Operand) -> str:
        label = f"{node.name}/{source.node}_delayed"
        return shift(self._scope, self.values[source.node], source.delay, label)

    def _cell(self, node: Cell, x: str) -> str:
        body = Scope(self._scope)
        states, arriving = _body_states(body), body.values.fresh(f"{node.name}/now")
        result = cell_step(body, node, arriving, states)
        shapes = node.operand_shapes
        shape = shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)
        self._scan(body, node.name, states, [(x, arriving, shape)], [(node, result)])
        return self.values[node.name]

    def _neuron(self, node: Neuron, x: str, output: str | None) -> str:
        body = Scope(self._scope)
        states = _body_states(body)
        if not has_state(node):
            return neuron_step(self._scope, node, x, states, output)
        arriving = body.values.fresh(f"{node.name}/now")
        result = neuron_step(body, node, arriving, states)
        self._scan(body, node.name, states, [(x, arriving, node.shape)], [(node, result)])
        return self.values[node.name]

    def _scan(
        self,
        body: Scope,
        label: str,
        states: States,
        arriving: Sequence[tuple[str, str, tuple[int, ...]]],
        leaving: Sequence[tuple[Node, str]],
    ) -> None:
        """Add a Scan. arriving: (sequence, its name in the body, shape); leaving: (node, its value in the body)."""
        scope = self._scope
        kept = _as_outputs(body, leaving)
        graph = body.graph(
            f"{label}/step",
            [floats(s.before, s.dims) for s in states] + [floats(name, ("B", *shape)) for _, name, shape in arriving],
            [floats(s.after, s.dims) for s in states] + [floats(name, ("B", *node.shape)) for node, name in kept],
        )
        finals = [scope.values.fresh(f"{state.after}_final") for state in states]
        outputs = [self._names.get(node.name) or scope.values.fresh(node.name) for node, _ in leaving]
        scope.add_node(
            "Scan",
            [self._start(state) for state in states] + [sequence for sequence, _, _ in arriving],
            [*finals, *outputs],
            label,
            body=graph,
            num_scan_inputs=len(arriving),
        )
        self.values.update({node.name: output for (node, _), output in zip(leaving, outputs, strict=True)})

    def _start(self, state: State) -> str:
        scope = self._scope
        if self._batch is None:
            self._batch = scope.op("Slice", [self._lead, scope.integers(1), scope.integers(2)], "batch")
        rest: Floats = np.asarray(state.start, np.float32)
        key = (state.shape, rest.shape, rest.tobytes())
        if key not in self._starts:
            shape = scope.op("Concat", [self._batch, scope.integers(*state.shape)], f"{state.before}_shape", axis=0)
            start = [scope.weight(f"{state.before}_rest", rest), shape]
            self._starts[key] = scope.op("Expand", start, f"{state.before}_start")
        return self._starts[key]


def _as_outputs(body: Scope, leaving: Sequence[tuple[Node, str]]) -> list[tuple[Node, str]]:
    """Return unique output names made in the body; a copy for any other value."""
    free = {output for operator in body.nodes for output in operator.output}
    kept = []
    for node, value in leaving:
        name = value if value in free else body.op("Identity", [value], f"{node.name}/out")
        free.discard(name)
        kept.append((node, name))
    return kept


def _body_states(body: Scope) -> States:
    return States(body, lambda node, kind: f"{node}/{kind}", lambda node, kind: f"{node}/{kind}_after")


def step_nodes(
    scope: Scope,
    nodes: Sequence[Node],
    states: States,
    given: Mapping[Operand, str],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Add one step of ``nodes``; return the name of each node's output ``[B, *shape]``.

    given: values that come from outside, by edge. names: how outputs shall be called, for
    inputs, spikes and Output nodes.
    """
    inside = {node.name: node for node in nodes}
    pasts = {
        name: Past(scope, states, name, "past", inside[name].shape, depth)
        for name, depth in _depths(nodes, given).items()
    }
    values: dict[str, str] = {}

    def arrive(source: Operand) -> str:
        if source in given:
            return given[source]
        return pasts[source.node].read(source.delay) if source.delay else values[source.node]

    for node in nodes:
        if isinstance(node, Input):
            values[node.name] = names[node.name]
        else:
            x = together(scope, node, [arrive(source) for source in node.operands], axis=1)
            values[node.name] = _step(scope, node, x, states, names.get(node.name))
    for name, past in pasts.items():
        past.write(values[name])
    return values


def together(scope: Scope, node: Node, values: Sequence[str], *, axis: int) -> str:
    """Combine a node's sources: their sum, left to right, or their concatenation along ``axis``."""
    if isinstance(node, Product):
        return _product(scope, node, values)
    if node.combine == "flat" and len(values) > 1:
        kept = scope.integers(*(0,) * axis, -1)
        values = [scope.op("Reshape", [value, kept], f"{node.name}/flat") for value in values]
    if node.combine != "add" and len(values) > 1:
        return scope.op("Concat", values, f"{node.name}/together", axis=axis)
    total, *others = values
    for other in others:
        total = scope.op("Add", [total, other], f"{node.name}/sum")
    return total


def _product(scope: Scope, node: Product, values: Sequence[str]) -> str:
    """Multiply two values, ``[..., *shape]`` each; as matrices in the type in which sums are made."""
    if not node.matrices:
        return scope.op("Mul", values, f"{node.name}/product")
    if not scope.double:
        return scope.op("MatMul", values, f"{node.name}/product")
    wide = [scope.op("Cast", [value], f"{node.name}/wide", to=TensorProto.DOUBLE) for value in values]
    product = scope.op("MatMul", wide, f"{node.name}/product")
    return scope.op("Cast", [product], f"{node.name}/rounded", to=TensorProto.FLOAT)


def _depths(nodes: Sequence[Node], given: Mapping[Operand, str]) -> dict[str, int]:
    """Return the number of past values of each node that its readers need."""
    depths: dict[str, int] = {}
    for node in nodes:
        for source in node.operands:
            if source.delay and source not in given:
                depths[source.node] = max(source.delay, depths.get(source.node, 0))
    return depths


def _step(scope: Scope, node: Node, x: str, states: States, output: str | None) -> str:
    if isinstance(node, Cell):
        return cell_step(scope, node, x, states, output)
    if isinstance(node, Neuron):
        return neuron_step(scope, node, x, states, output)
    if isinstance(node, Delay):
        return _delay(scope, node, x, states)
    return memoryless(scope, node, x, None, output)


def _delay(scope: Scope, node: Delay, x: str, states: States) -> str:
    depth = int(node.steps.max())
    if not depth:
        return x
    line = Past(scope, states, node.name, "line", node.shape, depth)
    y = choose(scope, node, lambda delay: line.read(delay) if delay else x)
    line.write(x)
    return y
