"""Find neuron fields that a target does not support, which must have their neutral value, and refuse nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any, NoReturn, Protocol

import numpy as np

from stl_deploy._util.remedies import option
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Neuron, Program

SEVERAL_ENDS = (
    "several-ends",
    "the graph has several inputs or outputs",
    "train with one input and one output, or export to onnx",
)
"""Slug, reason and remedy of a refusal."""
ZERO_IS_NONE = frozenset({"v_reset", "v_start", "i_start"})
"""Fields in which zeros say the same as None."""

_DESCRIPTIONS = {
    "multi_spike": ("several-spikes", "it fires several spikes per step"),
    "rounding": ("rounding", "it rounds its number of spikes to the nearest"),
    "cap": ("several-spikes", "it fires several spikes per step"),
    "v_reset": ("v-reset", "its v_reset is not 0"),
    "v_start": ("v-start", "its potential does not start at 0"),
    "i_start": ("i-start", "its current does not start at 0"),
    "v_min": ("v-min", "its potential has a lower bound, v_min"),
    "adaptation": ("adapting-threshold", "its threshold adapts"),
    "synapse": ("synaptic-current", "it filters its input current"),
}


def describe_field(field: str) -> tuple[str, str]:
    """Return the slug of an unsupported field, and the neuron's behaviour in words."""
    return _DESCRIPTIONS.get(field, (field.replace("_", "-"), f"it has {field}, which this target does not compute"))


def unread(neuron: Neuron, read: Collection[str]) -> Iterator[str]:
    """Yield the fields outside ``read`` without their neutral value, fields added to Neuron later included."""
    for field in fields(neuron):
        if field.name in read or field.name in ("name", "shape", "operands"):
            continue
        if field.name == "cap" and neuron.multi_spike and "multi_spike" not in read:
            continue  # multi_spike is yielded in its place
        value = getattr(neuron, field.name)
        if not _is_neutral(field.name, value, field.default):
            yield field.name


def _is_neutral(name: str, value: Any, default: Any) -> bool:
    if value is None:
        return default is None or default is MISSING
    if isinstance(value, np.ndarray):
        return name in ZERO_IS_NONE and not value.any()
    return bool(value == default)


class Named(Protocol):
    """A node of a Program or of an `IntegerGraph`."""

    @property
    def name(self) -> str:
        """Its name in the graph."""


def refuse(node: Named, slug: str, reason: str, remedy: str) -> NoReturn:
    """Raise UnsupportedError for a node."""
    raise refusal(node, slug, reason, remedy)


def refusal(node: Named, slug: str, reason: str, remedy: str) -> UnsupportedError:
    """The error for a node; what integers do not hold and ONNX does, floats hold in C, too."""
    floats = in_floats() if remedy.endswith("or export to onnx") else ""
    return UnsupportedError(reason, node=node.name, slug=slug, remedy=remedy + floats)


def in_floats() -> str:
    """Return the end of a remedy that sends a network to C without integers, behind ONNX."""
    return f", or to c with {option('numbers', 'float32')}"


def in_order(program: Program, errors: Iterable[UnsupportedError]) -> list[UnsupportedError]:
    """Return refusals in the order of their nodes, one for each node and slug."""
    place = {node.name: number for number, node in enumerate(program.nodes)}
    once = {(error.node, error.slug): error for error in reversed([*errors])}
    return sorted(reversed(once.values()), key=lambda error: place.get(error.node or "", -1))


def by_reason(errors: Iterable[UnsupportedError]) -> list[tuple[str, UnsupportedError]]:
    """Return refusals, one for each reason and remedy, each with the quoted names of its nodes."""
    alike: dict[tuple[str, str], list[UnsupportedError]] = {}
    for error in errors:
        alike.setdefault((error.reason, error.remedy), []).append(error)
    return [(", ".join(f"'{each.node}'" for each in group), group[0]) for group in alike.values()]


def together(errors: Sequence[UnsupportedError]) -> UnsupportedError:
    """Return one error that names every refusal, the first one's node and slug as its own."""
    (names, first), *others = by_reason(errors)
    also = names.removeprefix(f"'{first.node}'").removeprefix(", ")
    said = [first.remedy + (f" (also at {also})" if also else "")]
    said += [f"node{'s' if ', ' in nodes else ''} {nodes}: {error.reason}; {error.remedy}" for nodes, error in others]
    return first.with_remedy("; ".join(said))
