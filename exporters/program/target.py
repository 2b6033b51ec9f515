"""The Program itself as a Format: every node, read back to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stl_deploy.exporters.nir.target import Reference
from stl_deploy.exporters.program.file import read_program, write_program
from stl_deploy.exporters.targets import Format, Options
from stl_deploy.graph.check import ALL_NODES
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Program
from stl_deploy.graph.show import Row, table


class ProgramFormat(Format):
    """Keep networks that NIR cannot hold, for the commands of this package."""

    name = "program"
    description = "the network as this package holds it, for what NIR has no node for; read by stl-deploy alone"
    suffix = ".program"
    by_default = False
    takes = ALL_NODES

    def check(self, program: Program) -> Iterable[Finding]:
        """Return no findings: nothing is lost."""
        return ()

    def write(self, program: Program, path: Path, options: Options) -> Mapping[str, Any]:
        """See `write_program`."""
        write_program(program, path)
        return {"target": self.name}

    def load(self, path: Path) -> Reference:
        """Load the file as a reference run."""
        return Reference(read_program(path), Options())

    def rows(self, path: Path) -> tuple[Row, ...]:
        """Return one row for each node."""
        return table(read_program(path))


TARGETS = (ProgramFormat(),)
