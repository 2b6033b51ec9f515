"""Convert weights and biases to float64, so that later passes round nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph.program import Conv, Linear, Node
from stl_deploy.passes.base import Pass, rewrite_each


def _widened(node: Linear | Conv) -> Node:
    bias: Any = None if node.bias is None else node.bias.astype(np.float64)
    weight: Any = node.weight.astype(np.float64)
    return replace(node, weight=weight, bias=bias)


PASS = Pass("widen", rewrite_each(Linear | Conv, _widened), "bits")
