"""Read an untrusted ONNX file, and bound its memory before anything runs.

A kilobyte of operators can double a constant forty times. ONNX's own shape inference gives every value's size for given
T and B, without computing any; a file of ours leaves none open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, shape_inference

from stl_deploy._util.remedies import remedy
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.cells import OPERATORS as OPERATORS_OF_CELLS
from stl_deploy.exporters.onnx.interface import Interface, StateTensor
from stl_deploy.exporters.onnx.storage import MAX_MODEL_BYTES
from stl_deploy.graph.program import Shape

MAX_DATA_BYTES = 16 * 2**30
"""The largest file of weights beside a model that is read."""


MAX_ELEMENTS = 2**28
"""The largest input or state of one sample."""


_FREE_ELEMENTS = 2**24


_RATIO = 1024
"""All values of one sample and step may be 2^24 numbers together, more only up to 1024 for every weight and input."""


_MAX_SHAPE = 64
"""Numbers in a computed shape; no tensor of ours has more axes."""


_SMALL = 1024


_MANY = 2**15


_OPERATORS = OPERATORS_OF_CELLS | {
    "Cast",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "Expand",
    "Gather",
    "Gemm",
    "Identity",
    "MatMul",
    "MatMulInteger",
    "MaxPool",
    "Pad",
    "Reshape",
    "Scan",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def read_model(path: Path) -> tuple[Interface, dict[str, Shape], int]:
    """Return the file's metadata, each input's shape of one sample and step, and the size of all values.

    Raises InputError in one sentence if the file is missing, too large, damaged, not ours, holds operators that we
    do not write, or names weights outside its folder.
    """
    size = plain_file(path, "an .onnx")
    if size > MAX_MODEL_BYTES + 2**20:
        raise InputError(f"{path}: expected an ONNX file of at most 2 GiB; found {size / 2**30:.1f} GiB")
    with parse_errors_as_input_errors(path, "an ONNX file"):
        try:
            model = onnx.load_model_from_string(path.read_bytes())
        except DecodeError:
            raise InputError(
                f"{path}: not an ONNX file (or truncated); write one with "
                + remedy(cli="'stl-deploy export --to onnx'", python="net.export")
            ) from None
        return _read(model, path)


def _read(model: ModelProto, path: Path) -> tuple[Interface, dict[str, Shape], int]:
    interface = Interface.read({str(entry.key): str(entry.value) for entry in model.metadata_props}, str(path))
    _check_operators(model, path)
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_external(tensor, path)
    _check_ports(model.graph, interface, path)
    shapes = _input_shapes(model.graph, interface, path)
    for state in interface.states:
        _check_rest(state, shapes[state.tensor], path)
    elements = elements_per_step(model, path)
    _check_finite(model, path)
    return interface, shapes, elements


def _check_operators(model: ModelProto, path: Path) -> None:
    for node in nodes(model):
        if node.domain or node.op_type not in _OPERATORS:
            kind = f"{node.domain}.{node.op_type}".removeprefix(".")
            raise InputError(f"{path}: node '{node.name}' is a {kind}, which stl-deploy never writes; export it again")
    if model.functions or any(graph.sparse_initializer for graph in graphs(model.graph)):
        raise InputError(f"{path}: holds functions or sparse weights, which stl-deploy does not write; export it again")


def _check_external(tensor: TensorProto, path: Path) -> None:
    entries = _external(tensor)
    location = entries.get("location", "")
    data = path.parent / location
    if not location or location in {".", ".."} or Path(location).name != location or "\\" in location:
        raise InputError(f"{path}: weights '{tensor.name}' are at {location!r}; only a file in the same folder is read")
    if data.is_symlink() or not data.is_file():
        raise InputError(f"{path}: weights '{tensor.name}' are in {location}, which is not beside it; copy both files")
    size = data.stat().st_size
    if size > MAX_DATA_BYTES:
        raise InputError(
            f"{data}: expected at most {MAX_DATA_BYTES // 2**30} GiB of weights; found {size / 2**30:.0f} GiB"
        )
    numbers = [entries.get("offset", "0"), entries.get("length", "0")]
    if not all(number.isdecimal() for number in numbers) or sum(map(int, numbers)) > size:
        raise InputError(f"{data}: ends before the weights '{tensor.name}'; it is truncated, copy it again")


def _check_finite(model: ModelProto, path: Path) -> None:
    """Refuse NaN and infinity, as `stl_deploy.exporters.nir.lower` does: they never spike."""
    for tensor in _tensors(model):
        values = _floats(tensor, path)
        # Minimum and maximum carry NaN along and need no temporary of the array's size.
        if values.size and not np.isfinite([values.min(), values.max()]).all():
            where = f"weights '{tensor.name}'" if tensor.name else "a constant"
            raise InputError(f"{path}: {where}: expected finite numbers; found NaN or infinity; export it again")


def _floats(tensor: TensorProto, path: Path) -> NDArray[Any]:
    """Return the float values of a tensor, memory-mapped if external; none for integers."""
    kinds: dict[int, np.dtype[Any]] = {TensorProto.FLOAT: np.dtype("<f4"), TensorProto.DOUBLE: np.dtype("<f8")}
    kind = kinds.get(tensor.data_type)
    if kind is None:
        return np.zeros(0)
    if tensor.data_location == TensorProto.EXTERNAL:
        entries = _external(tensor)
        count, offset = (int(entries.get(key, "0")) for key in ("length", "offset"))
        return np.memmap(path.parent / entries["location"], kind, "r", offset, (count // kind.itemsize,))
    if tensor.raw_data:
        return np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // kind.itemsize * kind.itemsize], kind)
    return np.array(tensor.float_data or tensor.double_data)


def _check_ports(graph: GraphProto, interface: Interface, path: Path) -> None:
    """Require that the metadata's tensors are the graph's."""
    before = [state.tensor for state in interface.states]
    after = [state.next_tensor for state in interface.states]
    inputs = sorted([*interface.inputs.values(), *before])
    outputs = sorted([*interface.outputs.values(), *interface.spikes.values(), *after])
    ports = [sorted(str(value.name) for value in values) for values in (graph.input, graph.output)]
    if [inputs, outputs] != ports:
        raise InputError(f"{path}: its metadata does not name the graph's inputs and outputs; export it again")


def _input_shapes(graph: GraphProto, interface: Interface, path: Path) -> dict[str, Shape]:
    """Return the shape of one sample, by input tensor."""
    shapes = {}
    ports = set(interface.inputs.values())
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        lead = interface.lead_axes if value.name in ports else 1
        fixed = [dim.dim_value for dim in dims[:lead] if dim.HasField("dim_value")]
        shape = tuple(dim.dim_value for dim in dims[lead:])
        sizes = [*fixed, *shape]
        if len(dims) < lead or any(size < 1 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
            raise InputError(f"{path}: input '{value.name}' declares sizes {sizes}; export it again")
        shapes[value.name] = shape
    return shapes


def _check_rest(state: StateTensor, shape: Shape, path: Path) -> None:
    try:
        readable = bool(np.isfinite(np.broadcast_to(state.rest, shape)).all())
    except (ValueError, TypeError):
        readable = False
    if not readable:
        raise InputError(f"{path}: the state '{state.tensor}' has no readable value at rest; export it again")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model.graph):
        yield from graph.initializer
    for attribute in (attribute for node in nodes(model) for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _external(tensor: TensorProto) -> dict[str, str]:
    return {str(entry.key): str(entry.value) for entry in tensor.external_data}


def elements_per_step(model: ModelProto, path: Path) -> int:
    """Return the number of elements of all values of one sample at one step, weights left out.

    Raises InputError if that is more than weights and input can account for, grows faster than T·B, or is unknown;
    and for weights that declare more numbers than they hold.
    """
    given = sum(_numbers(tensor, path) for graph in graphs(model.graph) for tensor in graph.initializer)
    given += sum(math.prod(dim.dim_value or 1 for dim in v.type.tensor_type.shape.dim) for v in model.graph.input)
    limit = max(_FREE_ELEMENTS, _RATIO * given)
    lean = _without_weights(model)
    for node in nodes(lean):
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


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yield the operators of a model's graph and of those in it."""
    for graph in graphs(model.graph):
        yield from graph.node


def _count(tensor: TensorProto) -> int:
    return math.prod(tensor.dims)


def _numbers(tensor: TensorProto, path: Path) -> int:
    count = _count(tensor)
    outside = tensor.data_location == TensorProto.EXTERNAL
    stored = int(_external(tensor).get("length", "0")) if outside else len(tensor.raw_data)
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
    for name in (name for node in nodes(model) if node.op_type == "Concat" for name in node.output):
        shape = known.get(name)
        if shape is not None and len(shape) < 2 and math.prod(shape) > _MAX_SHAPE:
            raise InputError(f"{path}: value '{name}' is a shape of more than {_MAX_SHAPE} axes")


def _total(model: ModelProto, path: Path) -> int:
    """Return the number of elements of all values together."""
    known, total = _shapes(model), 0
    for name in (name for node in nodes(model) for name in node.output if name):
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
