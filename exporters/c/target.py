"""C as a Format, and its compiled program as a Runner."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.c.compiler import MISSING, find_compiler
from stl_deploy.exporters.c.folder import bytes_of, read_folder, write_folder
from stl_deploy.exporters.c.plan import make_plan
from stl_deploy.exporters.c.program import Program as CProgram
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.synops import measured_synops
from stl_deploy.exporters.integers.bounds import bounds
from stl_deploy.exporters.integers.branches import refusals
from stl_deploy.exporters.integers.graph import IntegerGraph
from stl_deploy.exporters.integers.net import STATE_SHIFT, STATE_TOP
from stl_deploy.exporters.integers.quantise import Quantised, quantise, to_integers
from stl_deploy.exporters.integers.simulate import GraphRun, simulate
from stl_deploy.exporters.integers.store import NAME, About
from stl_deploy.exporters.targets import Model, Network, Options
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Result

CALIBRATION = 256
"""Samples of the input that the integers are chosen by, where no others are given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class COptions(Options):
    """flash, ram: what the chip has, as ``256K``. trust: run a folder whose C is not what its integers make."""

    flash: str | None = None
    ram: str | None = None
    trust: bool = False


class GraphModel:
    """The integer model of a graph, for real input on its grid; spikes by NIR node name."""

    name = "loihi"
    description = "our integer model of the same integers"
    label: Literal["measured", "simulated"] = "simulated"
    reads: tuple[str, ...] = ("c",)
    options: type[Options] = Options
    agrees_with: Model | None = None

    def __init__(self, network: Network, options: Options, *, graph: IntegerGraph | None = None) -> None:
        self.graph = graph or _graph_of(network, options)

    @classmethod
    def available(cls) -> str | None:
        """Always."""
        return None

    def run(self, x: Any, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`."""
        return _result(self.graph, self.integers(_whole(self.graph, x), record))

    def integers(self, x: NDArray[Any], record: bool) -> GraphRun:
        """Run whole numbers."""
        return simulate(self.graph, x, record=record)


class C(GraphModel):
    """The C program of a folder, or of a Program, compiled for this machine and run."""

    name = "c"
    description = "the C program, compiled for this machine"
    label: Literal["measured", "simulated"] = "measured"
    options: type[Options] = COptions
    agrees_with: Model | None = "loihi"

    def __init__(self, network: Network, options: COptions) -> None:
        if isinstance(network, Path):
            graph, self._program = read_folder(network, trust=options.trust)
        else:
            graph = _graph_of(network, options)
            plan = make_plan(graph)
            self._program = CProgram(render_plan(plan, About()), plan)
        super().__init__(network, options, graph=graph)

    @classmethod
    def available(cls) -> str | None:
        """None if there is a C compiler."""
        return None if find_compiler() else MISSING

    def of(self, program: Program) -> Self:
        """The same; raises InputError if the folder was not made from a network of these nodes."""
        names = {node.name for node in program.spiking}
        own = {node.name for node in self.graph.populations}
        if names != own:
            raise InputError(
                f"expected a C folder that spikes in {', '.join(sorted(names))}; found {', '.join(sorted(own))}; "
                "name the graph that it was made from"
            )
        return copy.copy(self)

    def model(self, program: Program) -> GraphModel:
        """The integer model of the same integers, which every spike must equal."""
        return GraphModel(program, Options(), graph=self.graph)

    def integers(self, x: NDArray[Any], record: bool) -> GraphRun:
        """Compile and run."""
        return self._program.run(x, record=record)


class CFormat:
    """A folder of C99 without floating point or allocation, for microcontrollers."""

    name = "c"
    description = "C99 for microcontrollers: integers only, no allocation, event-driven"
    suffix: str | None = None
    folder: str | None = NAME
    options = COptions

    def check(self, program: Program) -> Iterable[Finding]:
        """Everything that keeps integers from holding the network, node by node."""
        return [from_error(error) for error in refusals(program)]

    def write(self, program: Program, path: Path, options: COptions) -> Mapping[str, Any]:
        """Choose integers by spike agreement on the calibration input (default: the first of x), write the folder.

        Raises UnsupportedError for what integers or the given flash and RAM cannot hold.
        """
        flash, ram = bytes_of(options.flash, "flash"), bytes_of(options.ram, "ram")
        calibration = _calibration(program, options)
        chosen = _quantised(program, calibration)
        x = to_integers(calibration, chosen.graph.input.scale)
        about = About(
            program.metadata.get("name") or path.name or "network",
            options.origin.get("source", "a network"),
            measured_synops(chosen.graph, x),
        )
        plan = write_folder(chosen.graph, about, path, flash=flash, ram=ram)
        tell_wraps(chosen.graph, options)
        options.say.say(f"flash {plan.flash:,} bytes and RAM {plan.ram:,} bytes; code and stack come on top")
        return {
            "target": self.name,
            "input_scale": chosen.graph.input.scale,
            "output_unit": chosen.graph.output.unit,
            "flash_bytes": plan.flash,
            "ram_bytes": plan.ram,
            "synops_worst": sum(share.synops for share in plan.shares.values()),
            "synops_measured": sum(about.measured.values()),
            "layers": [asdict(fit) for fit in chosen.fits],
            "memory": {
                name: {"flash": share.flash, "ram": share.ram, "synops": share.synops}
                for name, share in plan.shares.items()
            },
        }

    def load(self, path: Path) -> C:
        """The folder's program; raises InputError if its C is not what its integers make."""
        return C(path, COptions())


def tell_wraps(graph: IntegerGraph, options: Options) -> None:
    """Warn of populations whose u could leave 24 bits for some input."""
    known = bounds(graph)
    for node in graph.populations:
        low, high = known[node.name].sums
        reach = max(-low, high)
        if reach << STATE_SHIFT >= STATE_TOP:
            options.say.warn(
                f"'{node.name}': sums could reach {reach:,} for some input, past which they wrap as Loihi's do "
                f"({STATE_TOP >> STATE_SHIFT:,}); the calibration input decides whether they do"
            )


def _graph_of(network: Network, options: Options) -> IntegerGraph:
    if isinstance(network, Path):
        return read_folder(network)[0]
    return _quantised(network, _calibration(network, options)).graph


def _quantised(program: Program, calibration: NDArray[Any]) -> Quantised:
    grid = input_grid(program.metadata)
    if grid is None:
        return quantise(program, calibration)
    return quantise(program, calibration, input_scale=2.0**grid.fraction_bits, largest=grid.bound)


def _calibration(program: Program, options: Options) -> NDArray[Any]:
    """The samples that integers are chosen by; raises InputError where there are none."""
    given: Any = options.calibration
    if given is not None:
        return np.asarray(given() if callable(given) else given)
    if options.x is None:
        raise InputError("expected input to choose the integers by; found none; give --input")
    if isinstance(options.x, Mapping):
        raise InputError(f"expected one input; found {', '.join(options.x)}; the C target holds one")
    return np.asarray(options.x[:, :CALIBRATION])


def _whole(graph: IntegerGraph, x: Any) -> NDArray[Any]:
    if isinstance(x, Mapping):
        raise InputError(f"expected one input; found {', '.join(x)}; the C target holds one")
    return to_integers(x, graph.input.scale)


def _result(graph: IntegerGraph, found: GraphRun) -> Result:
    y = (found.y.astype(np.float64) * graph.output.unit).astype(np.float32)
    return Result({graph.output.name: y}, {name: s.astype(np.float32) for name, s in found.spikes.items()})


TARGETS = (CFormat(), C)
