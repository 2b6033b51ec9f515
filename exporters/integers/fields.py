"""Which fields of a Program's neuron a target reads: what it does not read must be as if it were not there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from stl_deploy.graph.program import Neuron

ZERO_IS_NONE = frozenset({"v_reset", "v_start"})
"""Fields in which zeros say the same as None."""


def unread(neuron: Neuron, read: Collection[str]) -> Iterator[str]:
    """Names of the fields outside ``read`` that say something; a field that is added to Neuron is among them."""
    for field in fields(neuron):
        if field.name in read or field.name in ("name", "shape", "sources"):
            continue
        value = getattr(neuron, field.name)
        if not _says_nothing(field.name, value, field.default):
            yield field.name


def _says_nothing(name: str, value: Any, default: Any) -> bool:
    if value is None:
        return default is None or default is MISSING
    if isinstance(value, np.ndarray):
        return name in ZERO_IS_NONE and not value.any()
    return bool(value == default)
