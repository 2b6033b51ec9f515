"""Make Delay nodes of delays outside loops; one step of each loop stays on the edge that closes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.program import Delay, Node, Operand
from stl_deploy.passes.base import Nodes, Pass, free, rewrite


def _materialise(nodes: Nodes) -> Nodes:
    """Turn delays outside loops into Delay nodes; one step of each loop stays on its closing edge."""
    replaced, made = dict(nodes), dict[str, str]()
    for name, node in nodes.items():
        sources = []
        for source in node.operands:
            closing = int(bool(source.delay) and _reaches(nodes, name, source.node))
            more = source.delay - closing
            if more:
                # In a loop the reader's own, as one with other readers is not moved past when the loop is read back.
                wanted = f"{source.node}_late{more}" + f"_to_{name}" * closing
                late = made.setdefault(wanted, free(replaced, wanted))
                delayed = (Operand(source.node, closing),)
                shape = nodes[source.node].shape
                replaced[late] = Delay(name=late, shape=shape, operands=delayed, steps=np.asarray(more, np.int64))
                sources.append(Operand(late))
            else:
                sources.append(source)
        replaced[name] = replace(replaced[name], operands=tuple(sources))
    return replaced


def _reaches(nodes: Mapping[str, Node], start: str, end: str) -> bool:
    """Return whether ``end`` depends on ``start`` (or equals it)."""
    return start in reachable([end], lambda name: (source.node for source in nodes[name].operands))


PASS = Pass("materialise_delays", rewrite(_materialise), "bits")
