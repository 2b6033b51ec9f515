"""Export a Program to ONNX.

Opset 18 and IR 8 (ONNX 1.13): the oldest that have every operator used in its present form (GreaterOrEqual on
floats, Shape of some axes, Clip and Scan without their early quirks), so ONNX Runtime from 1.14 on, its web build and
most converters take the file. Nothing later than 18 is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from onnx import ModelProto, ValueInfoProto, helper

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.int8 import to_int8
from stl_deploy.exporters.onnx.interface import Form, Interface, Precision, StateTensor
from stl_deploy.exporters.onnx.planes import to_planes
from stl_deploy.exporters.onnx.scope import Dims, Scope, floats
from stl_deploy.exporters.onnx.sequence import sequence_nodes
from stl_deploy.exporters.onnx.states import States
from stl_deploy.exporters.onnx.step import step_nodes
from stl_deploy.exporters.onnx.storage import MAX_MODEL_BYTES, write_model
from stl_deploy.graph.program import Node, Program

OPSET = 18
IR_VERSION = 8


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
            multiplies spikes by 8-bit planes where that gives the bits of ``float32`` (see `planes`).
        record: Add outputs ``spikes__<node>`` for every spiking node.
        provenance: Metadata to store (source file, its hash).
        external_above: Bytes of weights above which they go to a file beside the model.

    Raises:
        InputError: For an unknown form or precision, int8 without weights, ``integer`` without integer sums, or a
            folder that cannot be written.
        UnsupportedError: For a delay that is too long.
    """
    if form not in get_args(Form):
        raise InputError(f"expected an ONNX form, {' or '.join(get_args(Form))}; found {form!r}")
    if precision not in get_args(Precision):
        raise InputError(f"expected an ONNX precision: {', '.join(get_args(Precision))}; found {precision!r}")
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
    recorded = program.spiking if record else ()
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
        spiking=[node.name for node in program.spiking],
        states=[StateTensor(node=s.node, tensor=s.before, next_tensor=s.after, start=s.start.tolist()) for s in states],
        provenance=dict(provenance),
    )
    model.producer_version = interface.version
    helper.set_model_props(model, interface.properties(program.metadata))
    return model


def _reserve(scope: Scope, program: Program) -> dict[str, str]:
    """Reserve the public tensor names, those of nodes, before anything else takes one."""
    names = {node.name: scope.values.fresh(node.name) for node in (*program.inputs, *program.outputs)}
    return names | {node.name: scope.values.fresh(f"spikes__{node.name}") for node in program.spiking}


def _between(
    nodes: tuple[Node, ...], values: Mapping[str, str], lead: Dims, declared: set[str]
) -> list[ValueInfoProto]:
    """Return shapes of the nodes' outputs that are not the graph's, for viewers and shape inference."""
    shown = (node for node in nodes if node.name in values)
    shapes = {values[node.name]: node.shape for node in shown if values[node.name] not in declared}
    return [floats(name, (*lead, *shape)) for name, shape in shapes.items()]
