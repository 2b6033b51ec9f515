"""Xylo as a Format, and our model of the chip as a Runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.targets import Format, Options
from stl_deploy.exporters.xylo.runner import Xylo
from stl_deploy.exporters.xylo.specification import NAME
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Program


class XyloFormat(Format):
    """A folder with the arguments of the maker's ``config_from_specification``."""

    name = "xylo"
    description = "SynSense Xylo: the chip's integers, and a script that loads them"
    folder = NAME
    bare = True
    by_default = False

    def check(self, program: Program) -> Iterable[Finding]:
        raise NotImplementedError

    def write(self, program: Program, path: Path, options: Options) -> Mapping[str, Any]:
        raise UnsupportedError("not yet", node="graph", slug="x", remedy="x")

    def load(self, path: Path) -> Xylo:
        """A folder, or anyone's specification, as a run on our model; raises InputError for damaged files."""
        return Xylo(path, Options())


TARGETS = (XyloFormat(), Xylo)
