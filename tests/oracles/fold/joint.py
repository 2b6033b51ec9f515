"""The joint decision, in our reading: members vote together with weights, and become one graph.

The STL-SNN paper's "generalized joint decision framework" is not public. Our reading: a decision is a weighted mean
over populations of neurons (the vote inside a member), time steps (the mean of its votes) and members, networks that
were trained apart - with other seeds, or other modes. The weights are equal, given, or learned on validation data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.lower import METADATA_KEY
from stl_deploy.graph.exact import round_to_grid

_WEIGHT_BITS = 20
"""Votes are multiples of 2^-20: with weights that add up to 1 every sum of them is exact in float32."""
_STEPS = 500


def learn_weights(scores: Tensor, labels: Tensor) -> list[float]:
    """Weights of members, none negative, that add up to 1, from their scores ``[members, N, classes]``.

    They make the mean squared error between joint scores and one-hot labels ``[N]`` least (the paper's loss), found by
    gradient descent on a softmax from equal weights; the same input gives the same weights.
    """
    targets = functional.one_hot(labels, scores.shape[2]).to(torch.float64)
    logits = torch.zeros(len(scores), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    with torch.enable_grad():
        for _ in range(_STEPS):
            joint = torch.einsum("m,mnc->nc", logits.softmax(0), scores.detach().to(torch.float64))
            optimiser.zero_grad()
            functional.mse_loss(joint, targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return [float(weight) for weight in logits.detach().softmax(0)]


def merge(graphs: Sequence[nir.NIRGraph], weights: Sequence[float] | None = None) -> nir.NIRGraph:
    """One graph of folded members: one input, each member's nodes as ``m1_<name>``, the weighted sum of their votes.

    weights: one per member, positive; they are divided by their sum (None: equal). Raises InputError for members that
    read another input, mean another dialect, or do not end in a vote over the same classes.
    """
    shares = _shares(len(graphs), weights)
    check_members(graphs)
    first = _about(graphs[0])
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    for number, (graph, share) in enumerate(zip(graphs, shares, strict=True), start=1):
        names = {name: name if name in ("input", "output") else f"m{number}_{name}" for name in graph.nodes}
        nodes |= {names[name]: node for name, node in graph.nodes.items() if name != "output"}
        vote = graph.nodes["vote"]
        nodes[names["vote"]] = nir.Linear(round_to_grid(np.asarray(vote.weight) * share, _WEIGHT_BITS))
        edges += [(names[source], names[target]) for source, target in graph.edges]
    nodes["output"] = graphs[0].nodes["output"]
    about = {key: value for key, value in first.items() if key != "grid"} | {"joint": {"weights": shares}}
    return nir.NIRGraph(nodes, edges, metadata={METADATA_KEY: about}, type_check=False)


def _shares(members: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * members if weights is None else list(weights)
    if not members or len(given) != members or not all(np.isfinite(w) and w > 0 for w in given):
        raise InputError(f"expected one finite weight above 0 for each of {members} members; found {given}")
    return [weight / sum(given) for weight in given]


def check_members(graphs: Sequence[nir.NIRGraph]) -> None:
    """Raises InputError as `merge` does, without merging."""
    for number, graph in enumerate(graphs, start=1):
        _check_member(number, graph, graphs[0])


def _check_member(number: int, graph: nir.NIRGraph, first: nir.NIRGraph) -> None:
    for key in ("input", "dialect", "decision"):
        found, wanted = _about(graph).get(key), _about(first).get(key)
        if found != wanted:
            if isinstance(found, Mapping) and isinstance(wanted, Mapping):
                differ = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
                found, wanted = ({name: side.get(name) for name in differ} for side in (found, wanted))
            raise InputError(f"member {number}: expected {key} {wanted} as the first member has; found {found}")
    if not isinstance(graph.nodes.get("vote"), nir.Linear):
        raise InputError(f"member {number}: expected a network that ends in a vote; found none")
    for end in ("input", "output"):
        found, wanted = _shape(graph, end), _shape(first, end)
        if found != wanted:
            raise InputError(f"member {number}: expected {end} {wanted} as the first member has; found {found}")


def _shape(graph: nir.NIRGraph, end: str) -> list[int]:
    (shape,) = graph.nodes[end].input_type.values()
    return [int(size) for size in shape]


def _about(graph: nir.NIRGraph) -> Mapping[str, Any]:
    found: Mapping[str, Any] = graph.metadata[METADATA_KEY]
    return found
