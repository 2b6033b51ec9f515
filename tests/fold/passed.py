"""One pass over a NIR graph, as `fold` makes it: lowered, rewritten, written back."""

from __future__ import annotations

import nir

from stl_deploy.config.options import FoldOptions
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.passes import apply, narrow, widen
from stl_deploy.passes.base import Pass


def passed(one: Pass, graph: nir.NIRGraph, dialect: Dialect) -> tuple[nir.NIRGraph, tuple[str, ...]]:
    """The graph that a pass leaves, and the nodes that went into others; the very graph if there were none."""
    before = lower(graph, dialect)
    options = FoldOptions(thresholds="weights", merge_pools=True)
    made = apply(before, (widen.PASS, one, narrow.PASS), options)
    return (to_graph(made.program).graph if made.removed else graph), made.removed
