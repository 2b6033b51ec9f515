"""Round every array to float32: folding's only rounding if no grid was chosen."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Node, Norm
from stl_deploy.passes.base import Pass, rewrite_each


class NotFiniteError(InputError):
    """Values of the layer ``node`` leave float32's range."""

    def __init__(self, node: str) -> None:
        super().__init__(f"layer '{node}': weights are not finite after folding; was the training diverging?")
        self.node = node


def _narrowed(node: Node) -> Node:
    if isinstance(node, Norm):
        return node
    arrays = ((field.name, getattr(node, field.name)) for field in fields(node))
    wide = {name: _float32(node.name, a) for name, a in arrays if getattr(a, "dtype", None) == np.float64}
    return replace(node, **wide) if wide else node


def _float32(name: str, array: Any) -> Any:
    with np.errstate(over="ignore"):
        rounded = np.asarray(array).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise NotFiniteError(name)
    return rounded


PASS = Pass("narrow", rewrite_each(Node, _narrowed), "grid")
