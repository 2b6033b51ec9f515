"""Suggest replacements for operations without a form in a spiking graph."""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from torch import nn

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Neuron, Program

_ORDER = (
    "a spike is decided by its own potential; leave out comparisons between neurons; at the end (the decision, the "
    "first spike) return every step, [T, B, ...], and apply it to that"
)
_STATISTIC = "return what it reads, [T, B, ...] at every step, and apply it to that"
_PREPARED = "where it prepares x, apply it to x before capture"
_COUNTED = (
    "count spikes by torch.clamp(torch.floor(v / θ), 0, cap), or torch.round(torch.clamp(v / θ, 0, cap)); "
    "where it prepares x, apply it to x before capture"
)
SPARSE = "a graph holds all weights: keep them dense, F.linear(x, weight), with zeros in the places left out"
_INSTEAD = {
    **dict.fromkeys(("argmax", "argmin", "sort", "topk", "kthvalue"), _ORDER),
    **dict.fromkeys(("cumsum", "median", "cumprod"), _STATISTIC),
    **dict.fromkeys(("fmod", "remainder"), _PREPARED),
    "bmm": "with weights of its own for each group write Conv1d(n, m, 1, groups=g), or a block-diagonal Linear",
    "bitwise_xor": "write a * (1 - b) + b * (1 - a) of two spikes",
    "floor_divide": _COUNTED,
    **dict.fromkeys(("_to_sparse", "_sparse_mm", "_sparse_addmm", "sparse_mask", "_to_dense"), SPARSE),
    **dict.fromkeys(("_to_sparse_csr", "_sparse_coo_tensor_unsafe", "sparse_coo_tensor"), SPARSE),
}


NOT_READ = "'{}' is called in a form that capture does not read; write it in another way"


def no_form(name: str) -> str:
    """Say that an operation has no form, and name a replacement."""
    return f"'{name}' has no form in a spiking graph; {_INSTEAD.get(name, 'docs/capture.md lists what has')}"


PROVED = {
    "snntorch": ("0.8.0", "1.0.0"),
    "spikingjelly": ("0.0.0.0.14", "2.0.0"),
    "norse": ("1.1.0",),
    "sinabs": ("3.1.3",),
    "rockpool": ("3.1.0",),
}
"""The oldest that still works with today's torch, and the newest."""


def version_warnings(model: nn.Module) -> tuple[str, ...]:
    """One sentence for each framework in ``model`` whose version is not one of `PROVED`."""
    used = sorted({type(module).__module__.partition(".")[0] for module in nn.Module.modules(model)} & set(PROVED))
    warnings = []
    for name in used:
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "of no known version"
        if installed not in PROVED[name]:
            proved = " and ".join(PROVED[name])
            warnings.append(
                f"captures are held with {name} {proved}; found {installed}; this capture's own proof holds"
            )
    return tuple(warnings)


def in_code(error: GraphError, program: Program) -> str:
    """Return the sentence for a network that NIR refuses, in words of the module's code: it has no dialect."""
    node = program.by_name.get(error.node or "")
    if error.slug != "threshold-not-positive" or not isinstance(node, Neuron) or node.threshold is None:
        return str(error)
    least = float(np.min(node.threshold))
    sentence = f"node '{node.name}': expected a threshold above 0 here; found {least:g}"
    if node.multi_spike:
        return (
            f"{sentence}, of which several spikes in a step, trunc(v/θ), are no count; compare v with it: v > {least:g}"
        )
    if node.reset not in ("value", "value_delayed", "none"):
        return f"{sentence}, and to subtract it does not lower v; subtract a number above 0: v = v - s * 5"
    start = math.floor(least) - 5
    return f"{sentence}, and v starts at 0, not below it; start v below it: v = torch.full_like(v, {start})"
