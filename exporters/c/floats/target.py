"""C with float32 as a Format whose folder keeps its Program, and its compiled program as a Runner."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import bytes_of
from stl_deploy.errors import GraphError, InputError, ToolError, UnsupportedError
from stl_deploy.exporters.c.compiler import compile_program, find_compiler, run_program, why_none
from stl_deploy.exporters.c.floats.network import Layout, lay_out
from stl_deploy.exporters.c.floats.render import render
from stl_deploy.exporters.c.names import PREFIX, require_prefix
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.room import STACK, code_size
from stl_deploy.exporters.program.file import read_program, write_program
from stl_deploy.exporters.targets import Format, Network, Runner
from stl_deploy.graph.check import ALL_NODES, check_sums
from stl_deploy.graph.exact import input_bits
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.readout import Readout, readout_of
from stl_deploy.graph.run import NetworkInput, Result, as_floats, match_inputs
from stl_deploy.graph.show import Row, table
from stl_deploy.integers.store import MAX_FILE, About, folder_text, other_text, require_readable, write_texts

NAME = "c_floats.program"
"""The file that identifies a folder."""
_KEY, _TEXTS = "c", ("title", "source", "made_by", "prefix")
"""Of the metadata in it that hold texts of the C, and of these."""
_TEXT_OF_A_BYTE = 5
"""Characters of a table for each byte of its values, at most: ``255, `` of one, ``-1.17549435e-38f, `` of four."""
_AT_ONCE = 2**26
"""About how many bytes the program is given at a time."""


class CFloats(Runner):
    """The C program with float32 of a folder, or of a Program, compiled for this machine and run."""

    name = "c_floats"
    description = "the C program with float32, compiled for this machine"
    label = "measured"
    reads = ("c_floats",)
    options = COptions
    agrees_with = "reference"
    takes = ALL_NODES

    def __init__(self, network: Network, options: COptions) -> None:
        self._deadline = options.deadline
        self._flags: tuple[str, ...] = ()
        if isinstance(network, Path):
            self.program, self._files, self._prefix = read_folder(network, trust=options.trust)
        else:
            self.program, self._prefix = network, PREFIX
            layout = lay_out(network)
            self._files = render(network, layout, About())
            require_readable(self._files, layout.largest)
        self.input_bits = input_bits(self.program.metadata)
        self.readout: Readout | None = readout_of(self.program.metadata)

    @classmethod
    def available(cls) -> str | None:
        """Return None if there is a C compiler, else the reason."""
        return None if find_compiler() else why_none()

    def compiled_with(self, flags: Sequence[str]) -> CFloats:
        """Return the same program, built with these compiler flags; warnings that they bring are no errors."""
        same = copy.copy(self)
        same._flags = (*flags, "-Wno-error")
        return same

    def within(self, seconds: float) -> CFloats:
        """See `stl_deploy.exporters.targets.HasDeadline`."""
        same = copy.copy(self)
        same._deadline = seconds
        return same

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`."""
        arrays = match_inputs(self.program, x)
        steps, samples = next(iter(arrays.values())).shape[:2]
        kept = [*self.program.outputs, *(self.program.compared if record else ())]
        sizes = [math.prod(node.shape) for node in kept]
        at_once = max(1, _AT_ONCE // (4 * steps * (sum(sizes) + sum(math.prod(n.shape) for n in self.program.inputs))))
        flags = [*_FLAGS, *self._flags, *([f"-D{self._prefix.upper()}_RECORD"] if record else [])]
        rows = []
        with temporary_folder() as folder:
            compile_program(self._files, folder / "net", options=flags, libraries=["-lm"], deadline=self._deadline)
            for start in range(0, samples, at_once):
                part = {name: as_floats(array[:, start : start + at_once]) for name, array in arrays.items()}
                rows.append(self._batch(folder / "net", part, sum(sizes)))
        by_node = np.split(np.concatenate(rows, axis=1), np.cumsum(sizes)[:-1], axis=2)
        shaped = [np.ascontiguousarray(a).reshape(steps, samples, *n.shape) for n, a in zip(kept, by_node, strict=True)]
        if not all(np.isfinite(array).all() for array in shaped):
            raise GraphError("computes values beyond float32; the network diverges", slug="diverges")
        named = list(zip((node.name for node in kept), shaped, strict=True))
        outputs = len(self.program.outputs)
        return Result(dict(named[:outputs]), dict(named[outputs:]))

    def _batch(self, program: Path, x: Mapping[str, Floats], values: int) -> Floats:
        """Run one batch; return what it writes, ``[T, B, values]``."""
        steps, samples = next(iter(x.values())).shape[:2]
        flat = [x[node.name].reshape(steps, samples, -1) for node in self.program.inputs]
        given = np.array([samples, steps], np.int32).tobytes() + np.concatenate(flat, axis=2).swapaxes(0, 1).tobytes()
        output = run_program([str(program)], given, what="the compiled network", deadline=self._deadline)
        if len(output) != 4 * samples * steps * values:
            raise ToolError(f"the compiled network: expected {samples * steps * values:,} numbers; found others")
        return np.frombuffer(output, np.float32).reshape(samples, steps, values).swapaxes(0, 1)


class CFloatsFormat(Format):
    """A folder of C99 with float32 and without allocation, for processors with a float unit."""

    name = "c_floats"
    description = "C99 with float32, Cells included, for processors with a float unit (numbers float32)"
    folder = NAME
    by_default = False
    options = COptions
    takes = ALL_NODES

    def check(self, program: Program) -> Iterable[Finding]:
        """Return sums off an exact grid, which C adds up in an order of its own, and Cells that it does not hold."""
        try:
            layout = lay_out(program)
            if _TEXT_OF_A_BYTE * layout.flash.total() > MAX_FILE:  # rendered only where it may be too long
                require_readable(render(program, layout, About()), layout.largest)
        except UnsupportedError as error:
            return (from_error(error),)
        return check_sums(program)

    def check_for(self, program: Program, options: COptions) -> Iterable[Finding]:
        """Check as `check`, and whether tables and state fit into ``options``' flash and RAM."""
        findings = [*self.check(program)]
        if any(finding.severity == "error" for finding in findings):
            return findings
        try:
            layout = lay_out(program)
            _require_room(layout, options, _code_size(render(program, layout, About()), About(), options))
        except UnsupportedError as error:
            findings.append(from_error(error))
        return findings

    def write(self, program: Program, path: Path, options: COptions) -> Mapping[str, Any]:
        """Write the folder; raise UnsupportedError for more memory than ``options`` has."""
        layout = lay_out(program)
        about = About(
            str(program.metadata.get("name") or path.name or "network"),
            str(options.origin.get("source", "a network")),
            prefix=options.name or PREFIX,
        )
        files = render(program, layout, about)
        _require_room(layout, options, _code_size(files, about, options))
        write_texts(path, files, layout.largest)
        texts = {name: getattr(about, name) for name in _TEXTS}
        write_program(replace(program, metadata={**program.metadata, _KEY: texts}), path / NAME)
        flash, ram = layout.flash.total(), layout.state_bytes
        options.say.say(
            f"flash {flash:,} bytes and RAM {ram:,} bytes ({about.prefix}_state); code, the C library, stack and the "
            "caller's arrays come on top"
        )
        return {"target": self.name, "numbers": "float32", "flash_bytes": flash, "ram_bytes": ram}

    def rows(self, path: Path) -> tuple[Row, ...]:
        """Return one row for each node of its Program."""
        return table(read_folder(path, trust=True)[0])

    def load(self, path: Path) -> CFloats:
        """Load the folder's program; raise InputError if its C is not what its Program makes."""
        return CFloats(path, COptions())


_FLAGS = ("-ffp-contract=off",)
_FLOAT_UNIT = ("-ffp-contract=off", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")


def read_folder(folder: Path, *, trust: bool = False) -> tuple[Program, Mapping[str, str], str]:
    """Read a folder's Program and C, whose text must be what the Program makes; return them and the prefix.

    trust: accept other text, too. Raises InputError for files that are missing, damaged or not ours.
    """
    program = read_program(folder / NAME)
    try:
        title, source, made_by, prefix = (str(program.metadata[_KEY][name]) for name in _TEXTS)
        about = About(title, source, made_by=made_by, prefix=prefix)
        require_prefix(about.prefix)
        wanted = render(program, lay_out(program), about)
    except (KeyError, TypeError, UnsupportedError) as error:
        raise InputError(f"{folder / NAME}: expected a Program written as C; found another ({error})") from None
    texts = {name: folder_text(folder / name) for name in wanted}
    for name, text in wanted.items():
        if texts[name] != text and not trust:
            raise other_text(folder / name, NAME)
    return program, texts, about.prefix


def _code_size(files: Mapping[str, str], about: About, options: COptions) -> int | None:
    """Return bytes of code for a Cortex-M4F; None if no flash is given, or nothing measures it."""
    if options.flash is None:
        return None
    return code_size(files, about.prefix, options.deadline, flags=_FLOAT_UNIT)


def _require_room(layout: Layout, options: COptions, code: int | None) -> None:
    """Raise UnsupportedError if tables and code, or the state, exceed the chip's memory."""
    needed = {
        "flash": (layout.flash, layout.flash.total() + (code or 0)),
        "ram": (layout.ram, layout.state_bytes + STACK),
    }
    for what, (by_node, size) in needed.items():
        limit = bytes_of(getattr(options, what), what)
        if limit is not None and size > limit:
            raise UnsupportedError(
                f"expected at most {limit:,} bytes of {what}; the network takes {size:,}"
                f"{', without its code' if what == 'flash' and code is None else ''}"
                f"{', without the C library' if what == 'flash' else ''}",
                node=by_node.most_common(1)[0][0] if by_node else layout.largest,  # code alone may be too large
                slug=f"too-much-{what}",
                remedy=f"make this layer smaller, or take a chip with at least {size:,} bytes of {what}",
            )
