"""Bound the memory of an untrusted ONNX file before anything runs.

A kilobyte of operators can double a constant forty times. ONNX's own shape inference gives every value's size for given
T and B, without computing any; a file of ours leaves none open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, shape_inference

from stl_deploy._util.untrusted import parse_errors_as_input_errors
from stl_deploy.errors import InputError

_FREE_ELEMENTS = 2**24
_RATIO = 1024
"""All values of one sample and step may be 2^24 numbers together, more only up to 1024 for every weight and input."""
_MAX_SHAPE = 64
"""Numbers in a computed shape; no tensor of ours has more axes."""
_SMALL = 1024
_MANY = 2**15


def elements_per_step(model: ModelProto, path: Path) -> int:
    """Return the number of elements of all values of one sample at one step, weights left out.

    Raises InputError if that is more than weights and input can account for, grows faster than T·B, or is unknown;
    and for weights that declare more numbers than they hold.
    """
    given = sum(_numbers(tensor, path) for graph in graphs(model.graph) for tensor in graph.initializer)
    given += sum(math.prod(dim.dim_value or 1 for dim in v.type.tensor_type.shape.dim) for v in model.graph.input)
    limit = max(_FREE_ELEMENTS, _RATIO * given)
    lean = _without_weights(model)
    for node in (node for graph in graphs(lean.graph) for node in graph.node):
        if any(_count(tensor) > _SMALL for attribute in node.attribute for tensor in (attribute.t, *attribute.tensors)):
            raise InputError(f"{path}: node '{node.name}' holds a large constant, which stl-deploy never writes")
    with parse_errors_as_input_errors(path, "an ONNX file"):
        _check_shapes_of_shapes(shape_inference.infer_shapes(_sized(lean, 1), strict_mode=True), path)
        one, many = (
            _total(shape_inference.infer_shapes(_sized(lean, n), strict_mode=True, data_prop=True), path)
            for n in (1, _MANY)
        )
    needed = max(one, -(-many // _MANY**2))
    if needed > limit:
        raise InputError(
            f"{path}: makes {needed:,} numbers of one sample at one step, over the {limit:,} that its weights and "
            "input can account for; export it again"
        )
    return needed


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and those in its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def _count(tensor: TensorProto) -> int:
    return math.prod(tensor.dims)


def _numbers(tensor: TensorProto, path: Path) -> int:
    count = _count(tensor)
    external = {entry.key: entry.value for entry in tensor.external_data}
    stored = len(tensor.raw_data) if tensor.data_location != TensorProto.EXTERNAL else int(external.get("length", "0"))
    listed = max(len(getattr(tensor, f)) for f in ("float_data", "int32_data", "int64_data", "double_data"))
    if min(tensor.dims, default=0) < 0 or count > max(stored, listed):
        raise InputError(f"{path}: weights '{tensor.name}' declare {list(tensor.dims)}, which they do not hold")
    return count


def _without_weights(model: ModelProto) -> ModelProto:
    """Return the model with large weights as names and shapes alone."""
    lean = ModelProto(ir_version=model.ir_version)
    lean.opset_import.extend(model.opset_import)
    graph = lean.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if _count(tensor) > _SMALL or tensor.data_location == TensorProto.EXTERNAL:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        else:
            graph.initializer.append(tensor)
    return lean


def _sized(model: ModelProto, size: int) -> ModelProto:
    """Return the model for inputs whose open axes, T and B, are ``size``."""
    sized = ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    return sized


def _check_shapes_of_shapes(model: ModelProto, path: Path) -> None:
    """Refuse long rows of numbers as shapes: inference follows their values."""
    known = _shapes(model)
    for graph in graphs(model.graph):
        for node in graph.node:
            for name in node.output if node.op_type == "Concat" else ():
                shape = known.get(name)
                if shape is not None and len(shape) < 2 and math.prod(shape) > _MAX_SHAPE:
                    raise InputError(f"{path}: value '{name}' is a shape of more than {_MAX_SHAPE} axes")


def _total(model: ModelProto, path: Path) -> int:
    """Return the number of elements of all values together."""
    known, total = _shapes(model), 0
    for graph in graphs(model.graph):
        for node in graph.node:
            for name in filter(None, node.output):
                if name not in known:
                    raise InputError(f"{path}: the size of value '{name}' is unknown; export it again")
                total += math.prod(known[name])
    return total


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every value with a known one."""
    shapes: dict[str, tuple[int, ...]] = {}
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes
