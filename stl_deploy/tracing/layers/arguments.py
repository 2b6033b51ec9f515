"""Arguments of recorded operations, as numbers and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy.graph.program import Floats
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.steps import Signal


def number(constant: Any) -> Tensor:
    """A constant that is a node or a Python number, as a tensor."""
    found = constant.tensor if isinstance(constant, Node) else torch.tensor(float(constant))
    assert found is not None
    return found


def array(node: Any) -> Floats:
    """A constant node's value in float32."""
    found: Floats = node.tensor.detach().cpu().float().numpy()
    return found


def doubles(node: Any) -> NDArray[np.float64]:
    """A constant node's value in float64."""
    found: NDArray[np.float64] = node.tensor.detach().cpu().double().numpy()
    return found


def pair(value: Any) -> tuple[int, int]:
    """An argument that is one number for both axes, or one for each."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))


def with_defaults(args: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Positional arguments, with those that were left out at the end."""
    return (*args, *defaults[len(args) :])


def alpha(signal: Signal) -> float:
    """The factor of the second operand of a sum or difference."""
    given: float = signal.args[2] if len(signal.args) > 2 else (signal.kwargs or {}).get("alpha", 1)
    return given
