"""Decide by structure which values can arrive: the input coding, and AC or MAC for each node.

The values of a batch never decide a node's operation. They decide only the input coding, and only if neither the
caller nor the graph declares it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import InputCoding
from stl_deploy.graph.run import CHUNK

Op = Literal["AC", "MAC"]
_CODINGS: tuple[InputCoding, ...] = get_args(InputCoding)


@dataclass(frozen=True)
class Coding:
    """The input coding and its source (``caller``, ``metadata`` or ``data``)."""

    value: InputCoding
    origin: Literal["caller", "metadata", "data"]

    def sentence(self) -> str:
        """The coding as a line of the report's assumptions."""
        reason = {
            "caller": "as declared",
            "metadata": "as the graph's metadata declare",
            "data": "inferred from the whole input: "
            + ("it holds only 0 and 1" if self.value == "spikes" else "it holds other values than 0 and 1"),
        }[self.origin]
        return f"Input coding: {self.value} ({reason})."


def resolve_coding(program: ir.Program, arrays: Iterable[NDArray[Any]], declared: str | None) -> Coding:
    """Return the coding of the inputs ``arrays`` (each ``[T, B, *shape]``): declared, else metadata, else by the data.

    Raises InputError for an unknown coding and for data that contradict the declared one.
    """
    arrays = list(arrays)
    # also of a declared coding: spikes that are none are refused below
    odd = _first(arrays, lambda x: (x != 0) & (x != 1))
    noted = program.metadata.get("input_coding")
    named: Any = declared if declared is not None else noted
    origin: Literal["caller", "metadata"] = "caller" if declared is not None else "metadata"
    if named is None:
        return Coding("spikes" if odd is None else "analog", "data")
    coding = next((known for known in _CODINGS if known == named), None) if isinstance(named, str) else None
    if coding is None:
        raise InputError(f"input coding ({origin}): expected {', '.join(_CODINGS)}; found {named!r}")
    if coding == "spikes" and odd is not None:
        raise InputError(
            f"the input coding is 'spikes' ({origin}) but the input holds {odd:g}; "
            "spikes are 0 or 1: declare 'graded' or 'analog', or give spikes"
        )
    if coding == "graded" and (part := _first(arrays, lambda x: x != np.trunc(x))) is not None:
        raise InputError(
            f"the input coding is 'graded' ({origin}) but the input holds {part:g}; "
            "graded events carry integers: declare 'analog', or give integers"
        )
    return Coding(coding, origin)


def _first(arrays: Iterable[NDArray[Any]], where: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> float | None:
    """Return the first value for which ``where`` holds, looking at a few samples at a time."""
    for x in arrays:
        for start in range(0, x.shape[1], CHUNK):
            part = x[:, start : start + CHUNK]
            wrong = where(part)
            if wrong.any():
                return float(part[wrong][0])
    return None


def op_of(program: ir.Program, node: ir.Node, coding: InputCoding) -> Op:
    """Return AC if every value that can arrive at ``node`` is -1, 0 or 1 by structure and coding, else MAC.

    Sums of several sources, pools, analog inputs and neurons that fire several spikes in a step make MACs.
    """
    source = ir.origin_of(program, node)
    if isinstance(source, ir.Neuron | Cell):
        return "AC" if ir.is_binary(program, node.operands[0].node, "ternary") else "MAC"
    return "AC" if isinstance(source, ir.Input) and coding == "spikes" else "MAC"


def product_op(program: ir.Program, node: ir.Product, coding: InputCoding) -> Op:
    """Return AC if one operand of a product is -1, 0 or 1 by structure and coding: it adds the other's values."""
    operands = (replace(node, operands=(source,)) for source in node.operands)
    return "AC" if "AC" in {op_of(program, operand, coding) for operand in operands} else "MAC"
