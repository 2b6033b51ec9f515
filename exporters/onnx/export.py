"""Export a Program to ONNX: one step, or all in one call, with neurons and loops in a Scan or unrolled.

Opset 13 (ONNX 1.8) is the oldest in which every operator used has its present form: axes of Squeeze and sizes of Split
as inputs, GreaterOrEqual on floats. Sequences of any B need 15 (ONNX 1.10), for Shape of some axes. Later ones compute
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper
from onnx.defs import onnx_opset_version

from stl_deploy._util.remedies import named, option, remedy, require_one_of
from stl_deploy.config.options import OnnxForm, Precision
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.cells import cell_step, neuron_step
from stl_deploy.exporters.onnx.exact_sums import MANY_TAPS, to_planes
from stl_deploy.exporters.onnx.foreign import nodes
from stl_deploy.exporters.onnx.interface import Interface, StateTensor
from stl_deploy.exporters.onnx.scope import Lead, Scope, floats, numbers
from stl_deploy.exporters.onnx.states import Past, State, States, Unrolled, choose, shift
from stl_deploy.exporters.onnx.storage import MAX_MODEL_BYTES, write_model
from stl_deploy.exporters.onnx.synapses import memoryless
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.neuron_cells import as_cell
from stl_deploy.graph.program import Delay, Input, Neuron, Node, Operand, Product, Program
from stl_deploy.graph.segments import is_loop, segments

MOST_UNROLLED = 1024
"""Steps of the unrolled form, whose file grows with them."""


MOST_SCANS = 256
"""With more, one Scan takes all nodes: checking and loading a model takes time in proportion to its Scans squared."""


def export_onnx(
    program: Program,
    path: Path,
    *,
    form: OnnxForm = "sequence",
    precision: Precision = "float32",
    steps: int | None = None,
    batch: int | None = None,
    opset: int | None = None,
    record: bool = True,
    provenance: Mapping[str, str] | None = None,
    external_above: int = MAX_MODEL_BYTES,
) -> tuple[Path, ...]:
    """Write ``program`` as ONNX, checked by onnx.checker in full mode; return the files written.

    Tensors have the names of their NIR nodes.

    Args:
        form: ``sequence``: ``[T, B, *shape]`` for each Input and Output node. ``unrolled``: the same without Scan, for
            ``steps`` steps. ``step``: one time step ``[B, *shape]``, every state an input ``state__<node>__<kind>``
            and an output ``next__<node>__<kind>``.
        precision: Of the synapses. ``exact`` adds in float64 and rounds once, like ``run(..., double=True)``, for
            weights off the grid. ``integer`` multiplies spikes by 8-bit planes where that gives the bits of ``float32``
            (see `exact_sums`).
        steps: T, for runtimes that take static shapes; None: any.
        batch: B; None: any.
        opset: Version of the standard operators; None: the lowest that has them, 13 or 15.
        record: Add outputs ``spikes__<node>`` for every spiking node.
        provenance: Metadata to store (source file, its hash).
        external_above: Bytes of weights above which they go to a file beside the model.

    Raises:
        InputError: For an unknown form, precision or opset, sizes that the form does not take, ``integer``
            without integer sums, or a folder that cannot be written.
        UnsupportedError: For a delay that is too long.
    """
    require_one_of(form, OnnxForm, named("form"))
    require_one_of(precision, Precision, named("precision"))
    _check_sizes(form, steps, batch)
    planes = to_planes(program) if precision == "integer" else {}
    if precision == "integer" and not planes:
        raise InputError(
            "no layer's sums can be made in integers: spikes must arrive, and weights lie on the exact grid that "
            f"'fold' rounds to, in a linear layer or a convolution of at least {MANY_TAPS} weights an output; "
            + "export it without "
            + remedy(cli="--integer", python="precision='integer'")
        )
    scope = Scope(double=precision == "exact", planes=planes)
    names = _reserve(scope, program)
    lead = Lead(scope, steps, batch, names[program.inputs[0].name])
    model = _model(program, names, lead, form, precision, record, provenance or {})
    opsets = [helper.make_opsetid("", _opset(opset, model))]
    model.opset_import.extend(opsets)
    model.ir_version = helper.find_min_ir_version_for(opsets)
    return write_model(model, scope.weights, path, external_above)


def _check_sizes(form: OnnxForm, steps: int | None, batch: int | None) -> None:
    for name, size in (("steps", steps), ("batch", batch)):
        if size is not None and size < 1:
            raise InputError(f"{named(name)}: expected at least 1; found {size}")
    if form == "step" and steps is not None:
        raise InputError(f"{named('steps')}: expected the form sequence or unrolled; found step, which takes one step")
    if form == "unrolled" and not 1 <= (steps or 0) <= MOST_UNROLLED:
        given_steps = "no number of steps" if steps is None else str(steps)
        raise InputError(f"{named('steps')}: expected 1 to {MOST_UNROLLED} for the form unrolled; found {given_steps}")


def _opset(chosen: int | None, model: ModelProto) -> int:
    lowest = 15 if any(node.op_type == "Shape" and node.attribute for node in nodes(model)) else 13
    latest = onnx_opset_version()
    if chosen is not None and not lowest <= chosen <= latest:
        free = f" without {option('batch', 'B')}" if lowest > 13 else ""
        raise InputError(f"{named('opset')}: expected {lowest} to {latest}{free}; found {chosen}")
    return chosen or lowest


def _model(
    program: Program,
    names: Mapping[str, str],
    lead: Lead,
    form: OnnxForm,
    precision: Precision,
    record: bool,
    provenance: Mapping[str, str],
) -> ModelProto:
    scope = lead.scope
    states = States(scope, lambda node, kind: f"state__{node}__{kind}", lambda node, kind: f"next__{node}__{kind}")
    if form == "step":
        values = step_nodes(scope, program.nodes, states, {}, names)
    else:
        values = sequence_nodes(scope, program, names, lead, form)
    dims = lead.step if form == "step" else lead.sequence
    recorded = program.compared if record else ()
    inputs = [floats(names[node.name], dims(node.shape)) for node in program.inputs]
    inputs += [numbers(state.before, lead.step(state.shape), state.start.dtype) for state in states]
    outputs = [floats(names[node.name], dims(node.shape)) for node in (*program.outputs, *recorded)]
    outputs += [numbers(state.after, lead.step(state.shape), state.start.dtype) for state in states]
    declared = {value.name for value in inputs + outputs}
    shown = {values[node.name]: dims(node.shape) for node in program.nodes if node.name in values}
    between = [floats(name, shape) for name, shape in shown.items() if name not in declared]
    graph = scope.graph("stl-deploy", inputs, outputs, value_info=between)  # viewers show the shapes between
    model = ModelProto(graph=graph, producer_name="stl-deploy")
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


def sequence_nodes(
    scope: Scope, program: Program, names: Mapping[str, str], lead: Lead, form: OnnxForm
) -> dict[str, str]:
    """Add ``program`` over a whole sequence; return the name of each node's output ``[T, B, *shape]``.

    names: how outputs shall be called, for inputs, spikes and Output nodes.
    """
    builder = _Sequence(scope, program, names, lead, form)
    parts = segments(program)
    if form == "sequence" and sum(map(_is_stepped, parts)) > MOST_SCANS:
        for node in program.inputs:
            builder.feed_forward(node)
        builder.step_through([node for node in program.nodes if not isinstance(node, Input)], keeps_small=True)
        return builder.values
    for segment in parts:
        if _is_stepped(segment):
            builder.step_through(segment)
        else:
            builder.feed_forward(segment[0])
    return builder.values


def _is_stepped(segment: Sequence[Node]) -> bool:
    node = segment[0]
    return is_loop(segment) or isinstance(node, Cell) or (isinstance(node, Neuron) and bool(as_cell(node).states))


class _Sequence:
    def __init__(self, scope: Scope, program: Program, names: Mapping[str, str], lead: Lead, form: OnnxForm) -> None:
        self.values: dict[str, str] = {}
        self._scope, self._program, self._names, self._lead, self._form = scope, program, names, lead, form
        self._starts: dict[tuple[object, ...], str] = {}

    def feed_forward(self, node: Node) -> None:
        scope, output = self._scope, self._names.get(node.name)
        if isinstance(node, Input):
            self.values[node.name] = self._names[node.name]
            return
        x = together(scope, node, [self._arrive(node, source) for source in node.operands], axis=2)
        if isinstance(node, Neuron):
            value = neuron_step(scope, node, x, _body_states(scope), output)
        elif isinstance(node, Delay):
            value = choose(scope, node, lambda steps: shift(scope, x, steps, f"{node.name}/{steps}"))
        else:
            value = scope.named(memoryless(scope, node, x, self._lead), output)
        self.values[node.name] = value

    def step_through(self, nodes: Sequence[Node], *, keeps_small: bool = False) -> None:
        """Add nodes that are stepped together, in a Scan or one step after the other. keeps_small: see `Scope`."""
        inside = {node.name for node in nodes}
        edges = dict.fromkeys((node, source) for node in nodes for source in node.operands if source.node not in inside)
        arriving = {source: self._arrive(node, source) for node, source in edges}
        leaving = [
            node
            for node in nodes
            if node.name in self._names or any(reader.name not in inside for reader in self._program.readers[node.name])
        ]
        label = nodes[0].name if len(nodes) == 1 else f"loop of {', '.join(node.name for node in nodes)}"[:100]
        if self._form == "unrolled":
            self._unroll(nodes, arriving, leaving)
        else:
            self._scan(Scope(self._scope, keeps_small=keeps_small), label, nodes, arriving, leaving)

    def _arrive(self, node: Node, source: Operand) -> str:
        label = f"{node.name}/{source.node}_delayed"
        return shift(self._scope, self.values[source.node], source.delay, label)

    def _output(self, node: Node) -> str:
        return self._names.get(node.name) or self._scope.values.fresh(node.name)

    def _scan(
        self, body: Scope, label: str, nodes: Sequence[Node], arriving: Mapping[Operand, str], leaving: Sequence[Node]
    ) -> None:
        states = _body_states(body)
        given = {source: body.values.fresh(f"{source.node}/now") for source in arriving}
        stepped = step_nodes(body, nodes, states, given, {})
        kept = _as_outputs(body, [(node, stepped[node.name]) for node in leaving])
        shapes = {source: self._program.by_name[source.node].shape for source in arriving}
        graph = body.graph(
            f"{label}/step",
            [numbers(s.before, self._lead.step(s.shape), s.start.dtype) for s in states]
            + [floats(name, self._lead.step(shapes[source])) for source, name in given.items()],
            [numbers(s.after, self._lead.step(s.shape), s.start.dtype) for s in states]
            + [floats(name, self._lead.step(node.shape)) for node, name in kept],
        )
        finals = [self._scope.values.fresh(f"{state.after}_final") for state in states]
        outputs = [self._output(node) for node in leaving]
        self._scope.add_node(
            "Scan",
            [*map(self._start, states), *arriving.values()],
            [*finals, *outputs],
            label,
            body=graph,
            num_scan_inputs=len(arriving),
        )
        self.values |= {node.name: output for node, output in zip(leaving, outputs, strict=True)}

    def _unroll(self, nodes: Sequence[Node], arriving: Mapping[Operand, str], leaving: Sequence[Node]) -> None:
        scope, states = self._scope, Unrolled(self._start)
        inputs = {source: self._steps_of(sequence) for source, sequence in arriving.items()}
        outputs: dict[str, list[str]] = {node.name: [] for node in leaving}
        for t in range(self._lead.steps or 0):
            now = step_nodes(scope, nodes, states, {source: steps[t] for source, steps in inputs.items()}, {})
            for name, steps in outputs.items():
                steps.append(now[name])
        for node in leaving:
            joined = scope.op("Concat", outputs[node.name], f"{node.name}/steps", axis=0)
            shape = self._lead.sequence_shape(node.shape, f"{node.name}/shape")
            self.values[node.name] = scope.op(
                "Reshape", [joined, shape], f"{node.name}/sequence", output=self._output(node)
            )

    def _steps_of(self, sequence: str) -> list[str]:
        """Return the values ``[B, *shape]`` of each step of ``[T, B, *shape]``."""
        scope, count = self._scope, self._lead.steps or 0
        parts = [scope.values.fresh(f"{sequence}/{t}") for t in range(count)]
        scope.add_node("Split", [sequence, scope.integers(*[1] * count)], parts, f"{sequence}/steps", axis=0)
        return [scope.op("Squeeze", [part, scope.integers(0)], f"{part}/step") for part in parts]

    def _start(self, state: State) -> str:
        rest = np.asarray(state.start)
        key = (state.shape, rest.dtype, rest.shape, rest.tobytes())
        if key not in self._starts:
            shape = self._lead.step_shape(state.shape, f"{state.before}_shape")
            start = [self._scope.weight(f"{state.before}_rest", rest), shape]
            self._starts[key] = self._scope.op("Expand", start, f"{state.before}_start")
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
    return scope.sum(values, f"{node.name}/sum")


def _product(scope: Scope, node: Product, values: Sequence[str]) -> str:
    """Multiply two values, ``[..., *shape]`` each; as matrices in the type in which sums are made."""
    if not node.matrices:
        return scope.op("Mul", values, f"{node.name}/product")
    if not scope.double:
        return scope.op("MatMul", values, f"{node.name}/product")
    wide = [scope.cast(value, TensorProto.DOUBLE, f"{node.name}/wide") for value in values]
    return scope.cast(scope.op("MatMul", wide, f"{node.name}/product"), TensorProto.FLOAT, f"{node.name}/rounded")


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
    return scope.named(memoryless(scope, node, x, None), output)


def _delay(scope: Scope, node: Delay, x: str, states: States) -> str:
    depth = int(node.steps.max())
    if not depth:
        return x
    line = Past(scope, states, node.name, "line", node.shape, depth)
    y = choose(scope, node, lambda delay: line.read(delay) if delay else x)
    line.write(x)
    return y
