"""Store an `IntegerGraph` as data: ``integers.npz``, arrays of integers and a JSON text.

Files that are read are untrusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import output_size
from stl_deploy._util.files import make_folder, read_npz, write_npz, write_text
from stl_deploy._util.json_twin import expected, fits
from stl_deploy._util.remedies import remedy
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.graph.program import Node, Operand, Reshape, Shape
from stl_deploy.graph.readout import KEY as READOUT
from stl_deploy.graph.readout import Readout, readout_of
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.bounds import require_sums
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import (
    ACCUMULATORS,
    DECAY_ONE,
    LOIHI,
    MAX_THRESHOLD,
    MOST_SPIKES,
    RAISED_TOP,
    RESETS,
    STATE_SHIFT,
    WIDE,
    Accumulator,
    IntegerAdaptation,
    IntegerNeuron,
    Ints,
)

NAME = "integers.npz"
VERSION = 1
MAX_NODES, MAX_VALUES = 25_000, 2**28
MAX_FILE = 2**28
"""Bytes of a file beside the integers."""


@dataclass(frozen=True)
class About:
    """Context of a stored graph: names, provenance and decision.

    The network's name, its source file, synops measured by node (a step), the version of stl-deploy that chose the
    integers, and the readout.

    Attributes:
        prefix: Prefix of names in generated code.
        per_step: Whether labels are per step.
        steps: T of the export's input, 0 if unknown.
        dt: Duration of a step, in the unit of the network's time constants.
        trained: T of the training sequences, 0 if unknown.
        classes: Class names, empty if unknown.
    """

    title: str = "network"
    source: str = "a network"
    measured: Mapping[str, float] = field(default_factory=dict)
    made_by: str = field(default_factory=lambda: version("stl-deploy"))
    readout: Readout = field(default_factory=Readout)
    prefix: str = "net"
    per_step: bool = False
    steps: int = 0
    dt: float = 0.0
    trained: int = 0
    classes: tuple[str, ...] = ()

    def decision(self, shape: Shape) -> Readout | None:
        """Return the readout that decides on a class of outputs ``shape``; None if they are no list of classes."""
        readout = Readout("last", self.readout.population) if self.per_step else self.readout
        if readout.start or readout.each:
            return None  # the reader of the outputs leaves steps out, or applies the softmax
        if len(shape) != 1 or shape[0] % readout.population or shape[0] // readout.population < 2:
            return None
        return readout


_STRUCTURE = "structure"
_KINDS: dict[str, type[Node]] = {
    "input": int_ir.IntegerInput,
    "dense": int_ir.DenseNode,
    "conv": int_ir.ConvNode,
    "gain": int_ir.GainNode,
    "sum_pool": int_ir.SumPoolNode,
    "max_pool": int_ir.MaxPoolNode,
    "reshape": Reshape,
    "gather": int_ir.GatherNode,
    "product": int_ir.ProductNode,
    "delay": int_ir.DelayNode,
    "population": int_ir.IntegerLIF,
    "integrator": int_ir.IntegerLI,
    "output": int_ir.IntegerOutput,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_OF_NETX = ("delay", "shift", "enlarged")
"""Fields of a dense layer that only netx files set; what reads ``integers.npz`` does not compute them."""


def write_integers(graph: int_ir.IntegerGraph, about: About, path: Path) -> None:
    """Write the file, whole or not at all; raise UnsupportedError for dense layers as a netx file holds them."""
    for node in graph.nodes:
        if isinstance(node, int_ir.DenseNode) and (node.delay is not None or node.shift or node.enlarged):
            refuse(
                node,
                "netx-synapses",
                "its synapses have delays or shifted sums, which only netx files hold",
                "export the graph that the netx file was made from",
            )
    arrays: dict[str, NDArray[Any]] = {}
    nodes = []
    for index, node in enumerate(graph.nodes):
        nodes.append({"kind": _NAMES[type(node)], **_plain(node, f"{index}", arrays)})
    structure = {
        "version": VERSION,
        "title": about.title,
        "source": about.source,
        "measured": dict(about.measured),
        "made_by": about.made_by,
        "readout": about.readout.as_dict(),
        "prefix": about.prefix,
        "per_step": about.per_step,
        "steps": about.steps,
        "dt": about.dt,
        "trained": about.trained,
        "classes": list(about.classes),
        "accumulator": graph.accumulator.name,
        "nodes": nodes,
    }
    text = np.frombuffer(json.dumps(structure, allow_nan=False).encode(), np.uint8)
    write_npz(path, {_STRUCTURE: text, **arrays}, level=0)


def _plain(value: Any, key: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return a dataclass's fields as JSON; arrays go into ``arrays`` under the key that replaces them."""
    plain: dict[str, Any] = {}
    for each in fields(value):
        if each.name in _OF_NETX:
            continue
        item = getattr(value, each.name)
        if isinstance(item, np.ndarray):
            arrays[f"{key}.{each.name}"] = _narrowed(item)
            item = {"array": f"{key}.{each.name}"}
        elif item is None and each.name in ("adaptation", "start", "v_start", "u_start"):
            continue  # as files had none before
        elif isinstance(item, IntegerNeuron | IntegerAdaptation):
            item = _plain(item, f"{key}.{each.name}", arrays)
        elif each.name == "operands":
            item = [[operand.node, operand.delay] for operand in item]
        plain["sources" if each.name == "operands" else each.name] = item
    return plain


def _narrowed(values: Ints) -> NDArray[Any]:
    """Return bytes where they hold all values, as they hold weights; deflate would take little off them."""
    least, most = values.min(initial=0), values.max(initial=0)
    return values.astype(np.int8 if least >= -128 and most <= 127 else np.int32)


def read_integers(path: Path) -> tuple[int_ir.IntegerGraph, About]:
    """Read the file.

    Raises:
        InputError: For anything that `write_integers` does not write, sums beyond 32 bits too; names the node.
    """
    arrays = read_npz(path)
    try:
        structure = json.loads(arrays[_STRUCTURE].astype(np.uint8).tobytes().decode())
        nodes = structure["nodes"]
        about = About(
            str(structure["title"]),
            str(structure["source"]),
            {str(name): float(value) for name, value in structure["measured"].items()},
            str(structure["made_by"])[:40],
            readout_of({READOUT: structure["readout"]}),
            str(structure.get("prefix", "net")),
            bool(structure.get("per_step", False)),
            _whole(structure.get("steps", 0)),
            float(structure.get("dt", 0.0)),
            _whole(structure.get("trained", 0)),
            tuple(str(name) for name in structure.get("classes", [])),
        )
        accumulator = ACCUMULATORS[structure.get("accumulator", LOIHI.name)]  # files without it wrap as Loihi does
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, InputError):
        raise InputError(f"{path}: not the integers of a C folder; export it again") from None
    if structure.get("version") != VERSION or not isinstance(nodes, list) or not 1 <= len(nodes) <= MAX_NODES:
        raise InputError(f"{path}: not version {VERSION} of the integers of a C folder; export it again")
    made: list[Node] = []
    for entry in nodes:
        name = entry.get("name") if isinstance(entry, dict) else None
        try:
            made.append(_node(entry, arrays))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: node {str(name)[:40]!r} cannot be read ({error}); export it again") from None
    try:
        graph = _checked(made, accumulator)
    except (ValueError, StopIteration, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its nodes do not fit together ({error}); export it again") from None
    try:
        require_sums(graph)  # also where sums wrap: they do so at 2^17, after 64 times them fitted in 32 bits
    except UnsupportedError as error:
        raise InputError(f"{path}: {error}", slug=error.slug) from None
    return graph, about


def folder_bytes(path: Path) -> bytes:
    """Return the bytes of a file beside `NAME`; raise InputError if it is missing, no plain file, or too large."""
    try:
        plain_file(path, f"a file that export writes beside {NAME}", MAX_FILE)
        with parse_errors_as_input_errors(path, "a file"):
            return path.read_bytes()
    except InputError as error:
        raise InputError(f"{error}; export it again") from None


def require_readable(files: Mapping[str, str], largest: str) -> None:
    """Raise UnsupportedError for a text, by its file's name, that `folder_text` would not read.

    largest: the node with most numbers in them.
    """
    for name, text in files.items():
        if len(text) > MAX_FILE:
            raise UnsupportedError(
                f"{name} would take {len(text):,} bytes, over the {MAX_FILE:,} that are read back",
                node=largest,
                slug="too-much-text",
                remedy="export it to ONNX",
            )


def largest_node(graph: int_ir.IntegerGraph) -> str:
    """Return the name of the node with most numbers in its arrays."""
    sizes = {n.name: sum(v.size for v in vars(n).values() if isinstance(v, np.ndarray)) for n in graph.nodes}
    return max(sizes, key=sizes.__getitem__)


def write_texts(folder: Path, files: Mapping[str, str], largest: str) -> None:
    """Write texts into a folder, by their paths in it; before that raise as `require_readable`."""
    require_readable(files, largest)
    for name, text in files.items():
        make_folder((folder / name).parent)
        write_text(folder / name, text)


def folder_text(path: Path) -> str:
    """Return the text of such a file, its lines ended by a line feed; raise InputError if it is not ASCII."""
    try:
        return folder_bytes(path).decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not ASCII text; export it again") from None


def other_text(path: Path, of: str) -> InputError:
    """Return the error for a file of a folder that is not what ``of``, the data beside it, makes."""
    return InputError(
        f"{path}: expected what stl-deploy makes of {of}; found other text, which would be compiled and run; export it "
        "again, or, if you know it, take " + remedy(cli="simulate --trust", python="simulate(..., trust=True)")
    )


def _node(entry: Any, arrays: Mapping[str, NDArray[Any]]) -> Node:
    kind = _KINDS[entry["kind"]]
    values = {key: value for key, value in entry.items() if key != "kind"}
    values["operands"] = tuple(Operand(str(name), _whole(delay)) for name, delay in values.pop("sources"))
    if kind is int_ir.IntegerLIF:
        neuron = dict(values["neuron"])
        if "adaptation" in neuron:
            neuron["adaptation"] = IntegerAdaptation(**_fields(IntegerAdaptation, neuron["adaptation"], arrays))
        values["neuron"] = IntegerNeuron(**_fields(IntegerNeuron, neuron, arrays))
    return kind(**_fields(kind, values, arrays))


def _fields(kind: Any, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    known = {each.name: each for each in fields(kind) if each.name not in _OF_NETX}
    if set(values) - set(known):
        raise ValueError(f"unknown field {sorted(set(values) - set(known))[0]!r}")
    missing = [name for name, each in known.items() if name not in values and each.default is MISSING]
    if missing:
        raise ValueError(f"no field '{missing[0]}'")
    made = {name: _value(value, arrays) for name, value in values.items()}
    for name, hint in _hints(kind).items():
        if hint is float and type(made.get(name)) is int:
            made[name] = float(made[name])
        if name in made and not fits(made[name], hint):
            raise ValueError(f"{name}: expected {expected(hint)}; found {type(made[name]).__name__}")
    return made


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        array = arrays[value["array"]]
        if array.dtype not in (np.int8, np.int32) or array.size > MAX_VALUES:
            raise ValueError(f"expected int8 or int32; found {array.dtype}")
        return array.astype(np.int32, copy=False)
    if isinstance(value, list):
        return tuple(_value(item, arrays) for item in value)
    return _whole(value) if type(value) is int else value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**31:
        raise ValueError(f"{value!r} is no integer within 32 bits")
    return value


def _checked(nodes: list[Node], accumulator: Accumulator) -> int_ir.IntegerGraph:
    """Raise ValueError if shapes, orders or ranges do not fit."""
    known: dict[str, Node] = {}
    names = {node.name for node in nodes}
    if len(names) != len(nodes):
        raise ValueError("two nodes have one name")
    if not all(0 < len(name) <= 1000 for name in names):
        raise ValueError("expected names of 1 to 1000 characters")
    if not isinstance(nodes[0], int_ir.IntegerInput) or not isinstance(nodes[-1], int_ir.IntegerOutput):
        raise ValueError("expected the input as first node and the output as last; found others")
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        if isinstance(node, int_ir.IntegerInput) != (not known) or isinstance(node, int_ir.IntegerOutput) != (
            node is nodes[-1]
        ):
            raise ValueError("expected one input and one output")
        if not node.shape or min(node.shape) < 1 or math.prod(node.shape) > MAX_VALUES or len(node.shape) > 3:
            raise ValueError(f"'{node.name}' has shape {list(node.shape)}")
        if bool(node.operands) == isinstance(node, int_ir.IntegerInput):
            raise ValueError(f"'{node.name}' has {len(node.sources)} sources")
        for source in node.operands:
            if (
                source.node not in names
                or source.delay not in (0, 1)
                or (not source.delay and source.node not in known)
            ):
                raise ValueError(f"'{node.name}' reads '{source.node}', which does not come before it")
        arriving = {by_name[source.node].shape for source in node.operands}
        if isinstance(node, int_ir.ProductNode):
            _check_product(node, [by_name[source.node].shape for source in node.operands])
        elif len(arriving) > 1:
            raise ValueError(f"the sources of '{node.name}' differ in shape")
        else:
            _check_node(node, next(iter(arriving), ()), accumulator.threshold_top)
        known[node.name] = node
    return int_ir.IntegerGraph(tuple(nodes), accumulator)


def _check_node(node: Node, arriving: tuple[int, ...], most: int) -> None:
    def require(fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(f"{what} of '{node.name}' does not fit")

    match node:
        case int_ir.IntegerInput():
            require(-(2**31) < node.low <= 0 < node.high < 2**31 and 0 < node.scale < math.inf, "range")
        case int_ir.DenseNode():
            require(node.weight.shape == node.shape[-1:] + arriving[-1:] and len(arriving) >= 1, "weight")
            require(node.shape[:-1] == arriving[:-1], "shape")
            _check_weight(node.weight, require)
            require(node.bias is None or node.bias.shape == node.shape[-1:], "bias")
        case int_ir.ConvNode():
            _check_conv(node, arriving, require)
        case int_ir.GainNode():
            require(_broadcasts(node.weight, node.shape) and arriving == node.shape, "weight")
            _check_weight(node.weight, require)
        case int_ir.SumPoolNode():
            require(node.input_shape == arriving and len(arriving) == 3 and node.shape[0] == arriving[0], "input shape")
            _check_window(node.kernel, node.stride, (1, 1), node.padding, arriving[1:], node.shape[1:], require)
        case int_ir.MaxPoolNode():
            flat, out = ((s[0], 1, s[1]) if len(s) == 2 else s for s in (arriving, node.shape))
            require(node.input_shape == flat and len(flat) == len(out) == 3 and out[0] == flat[0], "input shape")
            _check_window(node.kernel, node.stride, (1, 1), node.padding, flat[1:], out[1:], require)
            halves = zip(node.kernel, node.padding, strict=True)
            require(all(max(sides) < size for size, sides in halves), "padding")
        case Reshape():
            require(node.input_shape == arriving and math.prod(arriving) == math.prod(node.shape), "input shape")
        case int_ir.GatherNode():
            require(node.input_shape == arriving and node.indices.shape == node.shape, "indices")
            require(int(node.indices.min()) >= -1 and int(node.indices.max()) < math.prod(arriving), "indices")
        case int_ir.DelayNode():
            require(arriving == node.shape and _broadcasts(node.steps, node.shape), "steps")
            require(int(node.steps.min()) >= 0 and int(node.steps.max()) <= int_ir.MOST_DELAY, "steps")
        case int_ir.IntegerLIF():
            require(arriving == node.shape, "shape")
            _check_neuron(node.neuron, node.shape, most, require)
            require(node.bias is None or _broadcasts(node.bias, node.shape), "bias")
        case int_ir.IntegerLI():
            require(arriving == node.shape, "shape")
            for decay in (node.v_decay, node.i_decay):
                require(_decays(decay, node.shape), "decay")
            require(node.bias is None or _broadcasts(node.bias, node.shape), "bias")
            _check_reach(node.v_start, node.shape, WIDE.v_top - 1, require)
            _check_reach(node.u_start, node.shape, WIDE.v_top - 1, require)
        case int_ir.IntegerOutput():
            require(arriving == node.shape and 0 < node.unit < math.inf, "shape")


def _check_product(node: int_ir.ProductNode, arriving: list[tuple[int, ...]]) -> None:
    """Raise ValueError if two operands do not multiply to the node's shape."""
    given = tuple(tuple(shape) for shape in node.operand_shapes)
    if len(arriving) != 2 or given != tuple(arriving):
        raise ValueError(f"'{node.name}' multiplies {list(given)}; {arriving} arrive")
    one, other = given
    if node.matrices:
        fits = len(one) == len(other) > 1 and one[-1] == other[-2]
        made = (*np.broadcast_shapes(one[:-2], other[:-2]), one[-2], other[-1]) if fits else ()
    else:
        made = np.broadcast_shapes(one, other)
    if made != node.shape:
        raise ValueError(f"shapes {list(one)} and {list(other)} of '{node.name}' do not multiply to {list(node.shape)}")


def _check_neuron(neuron: IntegerNeuron, shape: tuple[int, ...], most: int, require: Any) -> None:
    for decay in (neuron.v_decay, neuron.i_decay):
        require(_decays(decay, shape), "decay")
    require(_broadcasts(neuron.threshold, shape) and int(neuron.threshold.min()) >= 0, "threshold")
    for values in (neuron.threshold, neuron.drop, neuron.v_reset):
        _check_reach(values, shape, most, require, "threshold")
    require(neuron.reset in RESETS and (neuron.drop is not None) == neuron.reset.startswith("subtract"), "reset")
    # Several spikes a step are v // drop of them, which needs a drop of 1 or more.
    several = neuron.reset == "subtract" and neuron.drop is not None and int(neuron.drop.min()) >= 1
    require(neuron.cap == 1 or (several and 1 < neuron.cap <= MOST_SPIKES), "cap")
    _check_reach(neuron.v_start, shape, most << STATE_SHIFT, require)
    _check_reach(neuron.u_start, shape, most << STATE_SHIFT, require)
    if (adapts := neuron.adaptation) is not None:
        _check_reach(adapts.start, shape, RAISED_TOP, require)
        require(_decays(adapts.decay, shape) and int(np.min(adapts.decay)) >= 1 and neuron.cap == 1, "adaptation")
        require(_broadcasts(adapts.jump, shape), "jump")
        require(int(adapts.jump.min()) >= 0 and int(adapts.jump.max()) <= MAX_THRESHOLD, "jump")
        require(adapts.top <= RAISED_TOP, "jump")


def _check_reach(values: Ints | None, shape: Shape, most: int, require: Any, what: str = "start") -> None:
    require(values is None or _broadcasts(values, shape), what)
    # not np.abs: of -2^31 it is -2^31
    require(values is None or max(int(values.max()), -int(values.min())) <= most, what)


def _check_conv(node: int_ir.ConvNode, arriving: tuple[int, ...], require: Any) -> None:
    require(node.weight.ndim == 4 and min(node.weight.shape) >= 1 and node.groups >= 1, "weight")
    flat = (arriving[0], 1, arriving[1]) if len(arriving) == 2 else arriving
    require(node.input_shape == flat and len(flat) == 3, "input shape")
    out = (node.shape[0], 1, node.shape[1]) if len(node.shape) == 2 else node.shape
    require(len(out) == 3 and len(arriving) == len(node.shape), "shape")
    outs, ins = node.weight.shape[:2]
    require(outs == out[0] and outs % node.groups == 0 and ins * node.groups == flat[0], "weight")
    _check_weight(node.weight, require)
    require(node.bias is None or node.bias.shape == (outs,), "bias")
    _check_window(node.weight.shape[2:], node.stride, node.dilation, node.padding, flat[1:], out[1:], require)


def _check_window(kernel: Any, stride: Any, dilation: Any, padding: Any, given: Any, made: Any, require: Any) -> None:
    for pair in (kernel, stride, dilation, padding):
        require(len(pair) == 2, "window")
    for k, s, d, (before, after), n, out in zip(kernel, stride, dilation, padding, given, made, strict=True):
        require(min(k, s, d) >= 1 and min(before, after) >= 0 and max(k, s, d, before, after) < 2**15, "window")
        require(output_size(n, d * (k - 1) + 1, s, before + after) == out, "shape")


def _check_weight(weight: NDArray[Any], require: Any) -> None:
    require(weight.size > 0 and int(weight.min()) >= -128 and int(weight.max()) <= 127, "weight")


def _decays(decay: Any, shape: tuple[int, ...]) -> bool:
    if isinstance(decay, int):
        return 0 <= decay <= DECAY_ONE
    return _broadcasts(decay, shape) and int(decay.min()) >= 0 and int(decay.max()) <= DECAY_ONE


def _broadcasts(values: NDArray[Any], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(values.shape, shape) == shape and values.size > 0
    except ValueError:
        return False
