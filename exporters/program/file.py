"""Read and write Program files: the nodes as JSON, their arrays beside them, in one npz without pickle.

A file is not trusted: fields are checked one by one, then a step of zeros is run, which every node must take and turn
into the shape that it declares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.json_twin import expected, fits
from stl_deploy._util.npz import read_npz, write_npz
from stl_deploy._util.untrusted import one_line
from stl_deploy.errors import GraphError, InputError, StlDeployError, UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell, Constant, Operation, State, broadcasts
from stl_deploy.graph.check import ALL_NODES
from stl_deploy.graph.program import Shape
from stl_deploy.graph.run import run

FORMAT, FORMAT_OF_CELLS = 1, 2
"""Files without Cells keep format 1, which version 0.3 reads."""
_HEADER = "program"
_KINDS = {kind.__name__: kind for kind in ALL_NODES}
_PARTS = {kind.__name__: kind for kind in (ir.Operand, ir.Synapse, ir.Adaptation, State, Constant, Operation)}
"""Dataclasses that stand within nodes."""
_IN_FILES = {"operands": "sources", "Operand": "Source", "operand_shapes": "operands", "multi_spike": "many"}
"""Names of fields and kinds in files of format 1, where they differ."""
SUFFIX = ".program"
_LATER = {"adaptation", "start", "i_start"}
"""Fields that files of earlier versions lack."""
_MOST_VALUES = 2**28
"""Values of all nodes of one sample and step; with more, not even one step is run."""
_SIZES = ("divisor", "groups", "cap")
_MOST_LEVELS = 8
_MOST_DELAY = 2**16

Arrays = dict[str, NDArray[Any]]


def write_program(program: ir.Program, path: Path) -> None:
    """Write a Program whole or not at all; arrays keep their types.

    Raises UnsupportedError for more values of one sample than `read_program` takes.
    """
    if (values := _values(program)) > _MOST_VALUES:
        raise UnsupportedError(
            f"all nodes have {values:,} values of one sample; expected at most {_MOST_VALUES:,} in a Program file",
            node=max(program.nodes, key=lambda node: math.prod(node.shape)).name,
            slug="too-many-values",
            remedy="make the input smaller, or export it to ONNX",
        )
    arrays: Arrays = {}
    header = {
        "format": FORMAT_OF_CELLS if any(program.of(Cell)) else FORMAT,
        "dt": program.dt,
        "metadata": _metadata(program.metadata),
        "nodes": [_written(node, arrays) for node in program.nodes],
    }
    text = np.frombuffer(json.dumps(header, ensure_ascii=True).encode(), np.uint8)
    write_npz(path, {_HEADER: text, **arrays})


def read_program(path: Path) -> ir.Program:
    """Read a Program; raise InputError for a file that is damaged, or not ours."""
    arrays = read_npz(path)
    text = arrays.pop(_HEADER, None)
    if text is None or text.dtype != np.uint8 or text.ndim != 1:
        raise InputError(f"{path}: expected a Program file, with an array '{_HEADER}'; found an .npz of another kind")
    try:
        program = _program(json.loads(bytes(text).decode("ascii")), arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a Program file ({type(error).__name__}: {one_line(error, 200)})") from None
    _require_sound(program, path)
    return program


def _values(program: ir.Program) -> int:
    return sum(math.prod(node.shape) for node in program.nodes)


def _metadata(metadata: Mapping[str, Any]) -> Any:
    """Return the metadata as JSON; values without a JSON form are left out."""
    return json.loads(json.dumps(dict(metadata), default=lambda value: getattr(value, "tolist", lambda: None)()))


def _written(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        name = f"a{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array": name}
    if type(value).__name__ in {**_KINDS, **_PARTS}:
        contents = {_in_file(f.name): _written(getattr(value, f.name), arrays) for f in fields(value)}
        return {"kind": _in_file(type(value).__name__), **contents}
    return [_written(item, arrays) for item in value] if isinstance(value, tuple) else value


def _program(header: Any, arrays: Arrays) -> ir.Program:
    if header["format"] not in (FORMAT, FORMAT_OF_CELLS):
        raise InputError(
            f"expected format {FORMAT} or {FORMAT_OF_CELLS}; found {header['format']!r}; read it with the version that "
            "wrote it"
        )
    if not isinstance(header["metadata"], dict):
        raise InputError("expected metadata by name; found something else")
    dt = float(header["dt"])
    nodes = [_read(node, arrays) for node in header["nodes"]]
    if not (math.isfinite(dt) and dt > 0) or not nodes or not all(isinstance(node, ir.Node) for node in nodes):
        raise InputError("expected a time step above 0 and a list of nodes; found something else")
    return ir.Program(tuple(nodes), dt, header["metadata"])


def _read(value: Any, arrays: Arrays, level: int = 0) -> Any:
    if level > _MOST_LEVELS:
        raise InputError("its nodes are nested too deep")
    if isinstance(value, list):
        return tuple(_read(item, arrays, level + 1) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return _array(arrays[value["array"]])
    kind: Any = {_in_file(name): kind for name, kind in (_KINDS | _PARTS).items()}[value["kind"]]
    known = {_in_file(f.name): f.name for f in fields(kind)}
    value = {name: None for name in known.keys() & _LATER} | value
    if set(value) - {"kind"} != known.keys():
        raise InputError(f"a {value['kind']}: expected {', '.join(sorted(known))}; found other fields")
    made = {field: _read(value[name], arrays, level + 1) for name, field in known.items()}
    for field, hint in get_type_hints(kind).items():
        if field in made and not fits(made[field], hint):
            shown = made[field][:60] if isinstance(made[field], str) else type(made[field]).__name__
            raise InputError(f"{_in_file(field)}: expected {expected(hint)}; found {shown!r}")
    return kind(**made)


def _in_file(name: str) -> str:
    return _IN_FILES.get(name, name)


def _array(array: NDArray[Any]) -> NDArray[Any]:
    known = (np.float32, np.float64, np.int64, np.int32, np.bool_)
    if array.dtype not in known or not array.size or not bool(np.isfinite(array).all()):
        names = ", ".join(np.dtype(each).name for each in known)
        raise InputError(f"expected finite numbers in {names}; found {array.dtype}, or none, or NaN, or infinity")
    return array


def _require_sound(program: ir.Program, path: Path) -> None:
    """Raise InputError unless names, edges and shapes fit together and a step of zeros runs through."""
    names = [node.name for node in program.nodes]
    for node in program.nodes:
        where = f"{path}: node {str(node.name)[:60]!r}"
        if not isinstance(node.name, str) or names.count(node.name) > 1:
            raise InputError(f"{where}: expected a name of its own")
        if not _is_shape(node.shape):
            raise InputError(f"{where}: expected a shape of sizes of at least 1; found {node.shape!r}")
        for name in _SIZES:
            size = getattr(node, name, None)
            if size is not None and not _is_shape((size,)):
                raise InputError(f"{where}: {name}: expected a size of at least 1; found {size!r}")
        sources = node.operands if isinstance(node.operands, tuple) else ()
        if not all(_is_edge(source, names) for source in sources):
            raise InputError(f"{where}: expected to read nodes of the file, some steps late; found others")
        if bool(sources) == isinstance(node, ir.Input):
            raise InputError(f"{where}: expected sources of every node but inputs")
        for name, array in _by_element(node):
            if not broadcasts(array.shape, node.shape):
                shapes = f"that broadcasts to {list(node.shape)}; found {list(array.shape)}"
                raise InputError(f"{where}: {name}: expected a shape {shapes}")
        if isinstance(node, ir.Linear | ir.Conv):
            _require_weights(node, where)
    if not program.inputs or not program.outputs:
        raise InputError(f"{path}: expected an Input and an Output; found none")
    if _values(program) > _MOST_VALUES:
        raise InputError(f"{path}: its nodes have more than {_MOST_VALUES:,} values of one sample")
    for node in program.nodes:
        _require_arriving(program, node, path)
    try:
        for cell in program.of(Cell):
            _require_cell(program, cell)
        _run_a_step(program)
    except StlDeployError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # numpy's words for shapes that do not fit
        raise InputError(f"{path}: its nodes do not fit together ({one_line(error, 200)})") from None


def _require_arriving(program: ir.Program, node: ir.Node, path: Path) -> None:
    """Raise InputError unless what arrives at a node has the shape that the node takes, and becomes that of its output.

    Numpy would broadcast other shapes, and C would read and write beyond its arrays.
    """
    shapes = [program.by_name[operand.node].shape for operand in node.operands]
    wanted: list[Shape] = []
    made = node.shape
    # No node has the shape (0,): where it is made, the node is refused below.
    if isinstance(node, ir.Concat):
        wanted = [(size, *node.shape[1:]) for size in node.sizes]
        made = (sum(node.sizes), *node.shape[1:])
    elif isinstance(node, ir.Product):
        wanted = list(node.operand_shapes)
    elif node.combine == "add" and shapes:
        wanted = [getattr(node, "input_shape", node.shape)] * len(shapes)
    if isinstance(node, ir.Conv | ir.Pool | ir.MaxPool):
        made = _of_windows(node)
    if isinstance(node, ir.Delay) and not 0 <= node.steps.min() <= node.steps.max() <= _MOST_DELAY:
        made = (0,)
    if isinstance(node, ir.Reshape) and math.prod(node.input_shape) != math.prod(node.shape):
        made = node.input_shape
    if isinstance(node, ir.Gather) and not (
        -1 <= node.indices.min() <= node.indices.max() < math.prod(node.input_shape)
    ):
        made = (0,)
    if (wanted and wanted != shapes) or made != node.shape:
        expected_shapes = f"{[list(shape) for shape in wanted]} to make {list(made)}"
        found_shapes = f"{[list(shape) for shape in shapes]} to make {list(node.shape)}"
        raise InputError(f"{path}: node {node.name[:60]!r}: expected {expected_shapes}; found {found_shapes}")


def _of_windows(node: ir.Conv | ir.Pool | ir.MaxPool) -> Shape:
    """Return the shape that a convolution or pool makes; (0,) for sizes or strides that are none."""
    kernel: Shape = node.weight.shape[2:] if isinstance(node, ir.Conv) else node.kernel
    dilation = node.dilation if isinstance(node, ir.Conv) else (1,) * len(kernel)
    rank = len(kernel)
    parts = (node.stride, node.padding, dilation, node.input_shape[-rank:], kernel)
    if any(len(part) != rank for part in parts) or not all(map(_is_shape, (node.stride, dilation, kernel))):
        return (0,)
    places = []
    for size, (before, after), window, step, spread in zip(
        node.input_shape[-rank:], node.padding, kernel, node.stride, dilation, strict=True
    ):
        if min(before, after) < 0:
            return (0,)
        places.append((size + before + after - (window - 1) * spread - 1) // step + 1)
    first = node.weight.shape[:1] if isinstance(node, ir.Conv) else node.input_shape[:-rank]
    return (*first, *places)


def _require_weights(node: ir.Linear | ir.Conv, where: str) -> None:
    """Raise InputError for weights and biases that a product would broadcast, where other code reads their shapes."""
    if not _is_shape(node.input_shape) or not node.input_shape or not node.shape:
        raise InputError(f"{where}: expected input and output with sizes; found {node.input_shape!r}")
    wanted: tuple[int, ...] = (node.shape[-1], node.input_shape[-1])
    if isinstance(node, ir.Conv):
        wanted = (node.shape[0], node.input_shape[0] // max(node.groups, 1), *node.weight.shape[2:])
    axes = 2 if isinstance(node, ir.Linear) else 1 + len(node.input_shape)
    if node.weight.shape != wanted or node.weight.ndim != axes:
        given = list(node.weight.shape)
        raise InputError(f"{where}: weight: expected shape {list(wanted)}, of {axes} axes; found {given}")
    if node.bias is not None and node.bias.shape != node.weight.shape[:1]:
        expected, given = list(node.weight.shape[:1]), list(node.bias.shape)
        raise InputError(f"{where}: bias: expected a value for each output, {expected}; found {given}")


def _require_cell(program: ir.Program, cell: Cell) -> None:
    """Raise GraphError unless a Cell's operations fit its operands, states and outputs."""
    shapes = (*cell.operand_shapes, *cell.output_shapes, *(state.shape for state in cell.states))
    arriving = tuple(program.by_name[operand.node].shape for operand in cell.operands)
    if not all(map(_is_shape, shapes)) or arriving != cell.operand_shapes:
        raise GraphError("expected the shapes of its operands; found others", node=cell.name)
    _ = cell.values


def _by_element(part: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of a node, or of a part of one, that hold one value for each element, or for all."""
    if not isinstance(part, ir.Neuron | ir.Scale | ir.Delay | ir.Synapse | ir.Adaptation):
        return
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, np.ndarray):
            yield field.name, value
        else:
            yield from _by_element(value)


def _is_edge(source: Any, names: Collection[str]) -> bool:
    known = isinstance(source, ir.Operand) and source.node in names
    return known and type(source.delay) is int and 0 <= source.delay <= _MOST_DELAY


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(size) is int and 0 < size <= _MOST_VALUES for size in shape)


def _run_a_step(program: ir.Program) -> None:
    def observe(node: ir.Node, _: NDArray[Any], out: NDArray[Any]) -> None:
        if out.shape != (1, 1, *node.shape):
            raise InputError(f"node '{node.name}': expected the shape {list(node.shape)}; found {list(out.shape[2:])}")

    run(program, {n.name: np.zeros((1, 1, *n.shape), np.float32) for n in program.inputs}, observe=observe)
