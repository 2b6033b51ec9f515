"""C as a Format whose folder is read only if its C matches its integers, and its compiled program as a Runner."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import sha256
from stl_deploy._util.units import bytes_of
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.compiler import DEADLINE, find_compiler, why_none
from stl_deploy.exporters.c.floats.target import CFloats, CFloatsFormat
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.names import PREFIX, require_prefix
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.packages import package_files, with_selftest
from stl_deploy.exporters.c.plan import Plan
from stl_deploy.exporters.c.program import Program as CProgram
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.room import code_size, estimate_note, estimated_excesses, excesses
from stl_deploy.exporters.c.weights import conv_fan_out
from stl_deploy.exporters.integer_runner import IntegerProgram, calibration, overflows
from stl_deploy.exporters.targets import Format, Network
from stl_deploy.graph.check import NIR_NODES
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Gather, MaxPool, Node, Operand, Product, Program
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.show import Row
from stl_deploy.integers.bounds import SUM_LIMIT
from stl_deploy.integers.fan_in import refusals
from stl_deploy.integers.graph import ConvNode, DenseNode, GainNode, IntegerGraph, ProductNode
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.rounding import rounded
from stl_deploy.integers.simulate import IntegerRun, values_of
from stl_deploy.integers.store import (
    NAME,
    About,
    folder_text,
    largest_node,
    other_text,
    read_integers,
    write_integers,
    write_texts,
)

_made: dict[str, dict[str, str]] = {}
"""Hashes of the files that the last integers written here make, by the hash of these: rendered once, not twice."""


def write_folder(
    graph: IntegerGraph,
    about: About,
    folder: Path,
    *,
    flash: int | None,
    ram: int | None,
    deadline: float = DEADLINE,
) -> tuple[Plan, Mapping[str, str]]:
    """Write every file of a C folder; return the memory layout, and the files' text by name.

    flash, ram: available bytes. deadline: seconds for the compiler that measures the code's size.
    Raises UnsupportedError where the network takes more, or its sums do not fit.
    """
    plan = make_plan(graph)
    files = render_plan(plan, about)
    code = None if flash is None else code_size(files, about.prefix, deadline)
    for excess in excesses(plan, flash, ram, code):
        raise excess
    write_texts(folder, files, largest_node(plan.graph))
    write_integers(graph, about, folder / NAME)
    _made.clear()
    _made[sha256(folder / NAME)] = {name: _digest(text) for name, text in files.items()}
    return plan, files


def read_folder(folder: Path, *, trust: bool = False) -> tuple[IntegerGraph, CProgram]:
    """Read the integers and regenerate their program; the folder's text must equal it.

    trust: accept other text, too. Raises InputError for files that are missing, damaged or not what we
    would write.
    """
    graph, about = read_integers(folder / NAME)
    try:
        require_prefix(about.prefix)
        plan = make_plan(graph)
    except (UnsupportedError, InputError) as error:
        raise InputError(f"{folder / NAME}: {error}") from None
    files = _made.get(sha256(folder / NAME))
    if files is None:
        files = {name: _digest(text) for name, text in render_plan(plan, about).items()}
    texts = {name: folder_text(folder / name) for name in files}
    for name in files:
        if _digest(texts[name]) != files[name] and not trust:
            raise other_text(folder / name, NAME)
    return graph, CProgram(texts, plan, about.prefix)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


TAKES = NIR_NODES | {MaxPool, Gather, Product}
"""The nodes that integers hold."""


class C(IntegerProgram):
    """The C program of a folder, or of a Program, compiled for this machine and run."""

    name = "c"
    description = "the C program, compiled for this machine"
    label = "measured"
    options = COptions
    takes = TAKES

    def __init__(self, network: Network, options: COptions) -> None:
        graph: IntegerGraph | None = None
        self._files: CProgram | None = None
        self._flags: tuple[str, ...] | None = None
        if isinstance(network, Path):
            graph, self._files = read_folder(network, trust=options.trust)
        super().__init__(network, options, graph=graph)

    @classmethod
    def available(cls) -> str | None:
        """Return None if there is a C compiler, else the reason."""
        return None if find_compiler() else why_none()

    def compiled_with(self, flags: Sequence[str]) -> C:
        """Return the same program, built with these compiler flags; warnings that they bring are no errors.

        Spikes need a build that records them: outputs are those of the build that ships.
        """
        same = copy.copy(self)
        same._flags = (*flags, "-Wno-error")
        return same

    def integers(self, graph: IntegerGraph, x: NDArray[Any], record: bool) -> IntegerRun:
        """Compile and run."""
        if self._files is None:
            plan = make_plan(graph)
            self._files = CProgram(render_plan(plan, About()), plan)
        common: dict[str, Any] = {"options": self._flags or (), "deadline": self._options.deadline}
        made = self._files.run(x, record=record, **common)
        if self._flags is None or not record:
            return made
        return IntegerRun(self._files.run(x, **common).y, made.spikes)


class CFormat(Format):
    """A folder of C99 without floating point or allocation, for microcontrollers."""

    name = "c"
    description = "C99 for microcontrollers: integers only, no allocation, event-driven"
    folder = NAME
    options = COptions
    takes = TAKES

    def form(self, given: Mapping[str, Any]) -> Format:
        """Return the Format with float32, where ``numbers`` asks for it."""
        return CFloatsFormat() if given.get("numbers") == "float32" else self

    def check(self, program: Program) -> Iterable[Finding]:
        """Return everything that keeps integers from holding the network, node by node, and their rounding."""
        return [*(from_error(error) for error in refusals(program)), *rounded(program)]

    def check_for(self, program: Program, options: COptions) -> Iterable[Finding]:
        """Check as `check`, with x whether its integers overflow; estimate in seconds whether flash and RAM suffice."""
        findings = list(self.check(program))
        findings += overflows(
            program, options, findings, SUM_LIMIT, lambda x: choose(program, x, accumulator=options.accumulator)
        )
        if (options.flash is None and options.ram is None) or any(each.severity == "error" for each in findings):
            return findings
        flash, ram = bytes_of(options.flash, "flash"), bytes_of(options.ram, "ram")
        note = estimate_note() if flash is not None else None
        if note is not None:
            findings.append(Finding("code-estimated", "info", None, note))
        try:
            excesses = [*estimated_excesses(program, flash, ram, options.deadline, options.accumulator)]
        except UnsupportedError as error:
            excesses = [error]
        return [*findings, *(from_error(excess) for excess in excesses)]

    def write(self, program: Program, path: Path, options: COptions) -> Mapping[str, Any]:
        """Choose integers by spike agreement on the calibration input (default: the first of x), write the folder.

        Raises UnsupportedError for what integers or the given flash and RAM cannot hold.
        """
        flash, ram, prefix = bytes_of(options.flash, "flash"), bytes_of(options.ram, "ram"), str(options.name or PREFIX)
        note = estimate_note() if flash is not None else None
        if note is not None:
            options.say.say(note)
        if flash is not None or ram is not None:
            # Refused here, before integers are chosen on calibration data, which takes longer.
            for excess in estimated_excesses(program, flash, ram, options.deadline, options.accumulator):
                raise excess
        for error in refusals(program):
            raise error
        given = calibration(program, options, options.x)
        chosen = choose(program, given, accumulator=options.accumulator)
        x = np.asarray(to_integers(given, chosen.graph.input.scale), np.int32)
        about = About(
            program.metadata.get("name") or path.name or "network",
            options.origin.get("source", "a network"),
            measured_synops(chosen.graph, x),
            readout=readout_of(program.metadata),
            prefix=prefix,
            per_step=options.labels is not None and options.labels.ndim == 2,
            steps=x.shape[0],
            dt=program.dt,
            **_trained_with(program.metadata),
        )
        plan, files = write_folder(chosen.graph, about, path, flash=flash, ram=ram, deadline=options.deadline)
        largest = largest_node(plan.graph)
        write_texts(path, with_selftest("check", {"check/main.c": "main.c"}, plan, about, x, {}), largest)
        if options.package is not None:
            package = package_files(options.package, plan, about, files, x)
            write_texts(path / f"{prefix}_{options.package}", package, largest)
        options.say.say(
            f"flash {plan.flash:,} bytes and RAM {plan.ram:,} bytes ({prefix}_state); code, stack and the caller's "
            "arrays come on top"
        )
        return {
            "target": self.name,
            "accumulator": chosen.graph.accumulator.name,
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

    def rows(self, path: Path) -> list[Row]:
        """Return its layers and their memory, from its integers: nothing is compiled or run."""
        graph, program = read_folder(path, trust=True)
        return [_row(node, program.plan) for node in graph.nodes]

    def load(self, path: Path) -> C:
        """Load the folder's program; raise InputError if its C does not match its integers."""
        return C(path, COptions())


def _trained_with(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return T and class names as a run's graph declares them; a file's metadata are not trusted."""
    steps, classes = metadata.get("steps"), metadata.get("classes")
    facts: dict[str, Any] = {}
    if isinstance(steps, int) and not isinstance(steps, bool) and 0 < steps < 2**31:
        facts["trained"] = steps
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        facts["classes"] = tuple(classes)
    return facts


def _row(node: Node, plan: Plan) -> Row:
    share = plan.shares.get(node.name)
    arrays = [getattr(node, name, None) for name in ("weight", "bias")]
    about = "" if share is None else f"{share.flash:,} bytes of flash, {share.ram:,} of RAM"
    return Row(
        node.name,
        type(node).__name__.removesuffix("Node").removeprefix("Integer"),
        node.shape,
        tuple(source.node for source in node.operands),
        sum(array.size for array in arrays if array is not None),
        0 if share is None else share.synops,
        about,
    )


TARGETS = (CFormat(), C, CFloatsFormat(), CFloats)


def measured_synops(graph: IntegerGraph, x: NDArray[Any]) -> Mapping[str, float]:
    """Return the mean per step of one sample, by layer of weights, for integers ``x`` ``[T, B, *shape]``."""
    readers = [node for node in graph.nodes if isinstance(node, DenseNode | ConvNode | GainNode)]
    products = [node for node in graph.nodes if isinstance(node, ProductNode)]
    names = {source.node for node in [*readers, *products] for source in node.operands}
    values = values_of(graph, x, names)
    steps = x.shape[0] * x.shape[1]

    def read(source: Operand) -> NDArray[Any]:
        value = values[source.node]
        # A step late: nothing in the first, and the last is read by none.
        return np.concatenate([np.zeros_like(value[:1]), value[:-1]]) if source.delay else value

    synops = {}
    for node in readers:
        arriving = np.asarray(sum(read(source).astype(np.int32) for source in node.operands)) != 0
        if isinstance(node, ConvNode):
            taps = np.broadcast_to(conv_fan_out(node), node.input_shape).reshape(-1)
        else:
            taps = np.full(arriving[0, 0].size, len(node.weight) if isinstance(node, DenseNode) else 1)
        synops[node.name] = float(arriving.reshape(steps, -1).sum(axis=0) @ taps) / steps
    for product in products:
        left, right = (read(source) != 0 for source in product.operands)
        pairs = (left.astype(np.float32) @ right) if product.matrices else (left & right)
        synops[product.name] = float(pairs.sum(dtype=np.float64)) / steps
    return synops
