"""Read arguments of recorded operations as numbers and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy.graph.program import Floats
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Signal


def number(constant: Any) -> Tensor:
    """Return a constant that is a node or a Python number, as a tensor."""
    value = constant.tensor if isinstance(constant, Node) else torch.tensor(float(constant))
    assert value is not None
    return value


def array(node: Any) -> Floats:
    """Return a constant node's value in float32."""
    floats: Floats = node.tensor.detach().cpu().float().numpy()
    return floats


def doubles(node: Any) -> NDArray[np.float64]:
    """Return a constant node's value in float64."""
    floats: NDArray[np.float64] = node.tensor.detach().cpu().double().numpy()
    return floats


def pair(value: Any) -> tuple[int, int]:
    """Return an argument that is one number for both axes, or one for each, as a pair."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))


def with_defaults(args: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Complete positional arguments with those that were left out at the end."""
    return (*args, *defaults[len(args) :])


def alpha(signal: Signal) -> float:
    """Return the factor of the second operand of a sum or difference."""
    given: float = signal.args[2] if len(signal.args) > 2 else (signal.kwargs or {}).get("alpha", 1)
    return given
