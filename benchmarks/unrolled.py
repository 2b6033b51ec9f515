"""A copy of an ONNX model for one number of time steps, without Scan: to measure what that would bring."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper


def unrolled(model: ModelProto, steps: int) -> ModelProto:
    """``model`` with the body of each Scan repeated ``steps`` times, one copy after another."""
    flat = ModelProto()
    flat.CopyFrom(model)
    nodes = list(flat.graph.node)
    del flat.graph.node[:], flat.graph.value_info[:]
    for node in nodes:
        flat.graph.node.extend(_unroll(node, flat.graph, steps) if node.op_type == "Scan" else [node])
    for value in (*flat.graph.input, *flat.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = steps
    onnx.checker.check_model(flat, full_check=True)
    return flat


def _unroll(scan: NodeProto, graph: GraphProto, steps: int) -> list[NodeProto]:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in scan.attribute}
    body, arriving = attributes["body"], attributes["num_scan_inputs"]
    graph.initializer.extend(body.initializer)
    kept = len(scan.input) - arriving
    states = list(scan.input[:kept])
    parts = [[f"{name}/{scan.name}/{t}" for t in range(steps)] for name in scan.input[kept:]]
    nodes = [
        helper.make_node("Split", [name], part, axis=0, num_outputs=steps)
        for name, part in zip(scan.input[kept:], parts, strict=True)
    ]
    left: list[list[str]] = [[] for _ in scan.output[kept:]]
    for t in range(steps):
        now = [f"{part[t]}/now" for part in parts]
        nodes += [_reshape("Squeeze", part[t], name, graph) for part, name in zip(parts, now, strict=True)]
        names = dict(zip([value.name for value in body.input], [*states, *now], strict=True))
        for node in body.node:
            copied, names = _copy(node, names, f"/{scan.name}/{t}")
            nodes.append(copied)
        ends = [names[value.name] for value in body.output]
        states = ends[:kept]
        for outputs, name in zip(left, ends[kept:], strict=True):
            outputs.append(f"{name}/step")
            nodes.append(_reshape("Unsqueeze", name, outputs[-1], graph))
    nodes += [
        helper.make_node("Concat", outputs, [name], axis=0)
        for outputs, name in zip(left, scan.output[kept:], strict=True)
    ]
    return nodes


def _reshape(kind: str, before: str, after: str, graph: GraphProto) -> NodeProto:
    if not any(tensor.name == "unrolled_axis" for tensor in graph.initializer):
        graph.initializer.append(helper.make_tensor("unrolled_axis", onnx.TensorProto.INT64, [1], [0]))
    return helper.make_node(kind, [before, "unrolled_axis"], [after])


def _copy(node: NodeProto, names: dict[str, str], mark: str) -> tuple[NodeProto, dict[str, str]]:
    """A copy whose outputs have names of their own, and the names by which later copies know them."""
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.name += mark
    _rename(copied.input, [names.get(name, name) for name in node.input])
    _rename(copied.output, [name + mark for name in node.output])
    return copied, names | {name: name + mark for name in node.output}


def _rename(field: MutableSequence[str], names: Sequence[str]) -> None:
    del field[:]
    field.extend(names)
