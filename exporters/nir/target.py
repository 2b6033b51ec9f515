"""NIR as a Format, the reference as a Runner, and the frameworks' readers as check targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stl_deploy._util.remedies import option
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.nir.detect_writer import resolve_dialect
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.exporters.nir.readers.restate import READER_TARGETS, restate
from stl_deploy.exporters.targets import Check, Format, Network, Options, Runner
from stl_deploy.graph.check import ALL_NODES
from stl_deploy.graph.exact import input_bits
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Input, Node, Operand, Output, Program
from stl_deploy.graph.run import CHUNK, NetworkInput, Result, Stream, run


@dataclass(frozen=True, kw_only=True, eq=False)
class NirOptions(Options):
    """reader: the framework that the graph is restated for; None: the graph unchanged."""

    reader: str | None = None


class Reference(Runner):
    """The Program in numpy, which every float target must equal. double: synaptic sums in float64, rounded once."""

    name = "reference"
    description = "the reference run (numpy, float32)"
    label = "measured"
    reads = ("nir",)
    agrees_with = "reference"
    takes = ALL_NODES
    session = Stream

    def __init__(self, network: Network, options: Options, *, double: bool = False, name: str = name) -> None:
        self.program = network if isinstance(network, Program) else _as_meant(network)
        self.name, self._double = name, double

    @property
    def input_bits(self) -> int | None:
        """See `stl_deploy.exporters.targets.DeclaresInputGrid`."""
        return input_bits(self.program.metadata)

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`."""
        names = [node.name for node in self.program.compared] if record else ()
        return run(self.program, x, record=names, chunk=CHUNK, double=self._double)


def _as_meant(path: Path) -> Program:
    """Return the Program of a file by its metadata, or its form; raise InputError if neither determines it."""
    graph = read_nir(path)
    return lower(graph, resolve_dialect(graph, None, path).dialect)


RESTATED = "the graph is written anew, flat and canonical: its own nodes cannot hold what changed"


def unheld(program: Program, error: CaptureError) -> UnsupportedError:
    """Return why a Program of NIR's own nodes is no NIR graph all the same."""
    name = error.layer or program.nodes[0].name
    remedy = "keep it as a .program file, and export that to another target"
    return UnsupportedError(error.reason, node=name, slug="not-in-nir", remedy=remedy)


def _refusal(program: Program) -> UnsupportedError | None:
    try:
        to_graph(program)
    except UnsupportedError as error:
        return error
    except CaptureError as error:
        return unheld(program, error)
    return None


def _alone(program: Program, node: Node) -> UnsupportedError | None:
    """Return why NIR does not hold a node, which reads one input here; None if it does."""
    if isinstance(node, Input | Output):
        return None
    shape = getattr(node, "input_shape", node.shape)
    ends = Input(name="x", shape=shape, operands=()), Output(name="y", shape=node.shape, operands=(Operand(node.name),))
    return _refusal(Program((ends[0], replace(node, operands=(Operand("x"),)), ends[1]), program.dt))


class Nir(Format):
    """The graph with its dialect in the metadata, or restated for a framework's reader."""

    name = "nir"
    description = "the graph itself, canonical: thresholds per neuron, float32, dialect in its metadata"
    suffix = ".nir"
    options = NirOptions

    def check(self, program: Program) -> Iterable[Finding]:
        """Check by writing the Program and reading it back, and, if that fails, each other node alone."""
        first = _refusal(program)
        if first is None:
            return ()
        others = (_alone(program, node) for node in program.nodes if node.name != first.node)
        return [from_error(error, self.name) for error in (first, *others) if error is not None]

    def write(self, program: Program, path: Path, options: NirOptions) -> Mapping[str, Any]:
        """Write the Program, patching the graph that it was read from, or its restatement for ``options.reader``.

        Raises UnsupportedError for nodes that NIR cannot hold, or as `restate` does.
        """
        if options.reader is not None:
            restated = restate(program, options.reader)
            write_nir(restated.graph, path)
            return {"target": self.name, "reader": options.reader, "load": restated.load}
        try:
            written = to_graph(program)
        except CaptureError as error:
            raise unheld(program, error) from None
        write_nir(written.graph, path)
        if written.how != "restated":
            return {"target": self.name}
        options.say.say(RESTATED)
        return {"target": self.name, "restated": True}

    def load(self, path: Path) -> Reference:
        """Load the reference of the graph, by its metadata."""
        return Reference(path, Options())


def _for_reader(name: str) -> str:
    return f"export with {option('to', 'nir')} and {option('reader', name)}"


READERS = tuple(
    Check(name, f"what {name}'s NIR reader can hold", ask, partial(_for_reader, name))
    for name, ask in READER_TARGETS.items()
)
TARGETS = (Nir(), Reference, *READERS)
