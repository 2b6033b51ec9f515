"""Join decisions: members vote together with weights, and become one network.

The STL-SNN paper's "generalized joint decision framework" is not public. Our reading: a decision is a weighted mean
over populations of neurons (the vote inside a member), time steps (the mean of its votes) and members. Members are
networks that were trained separately, with other seeds or modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.graph.exact import round_to_grid
from stl_deploy.graph.program import Input, Linear, Node, Operand, Output, Program

_WEIGHT_BITS = 20
"""Votes are multiples of 2^-20: with weights that add up to 1 every sum of them is exact in float32."""
_ENDS = ("input", "output")


def merge(members: Sequence[Program], weights: Sequence[float] | None = None) -> Program:
    """Merge folded members: one input, each member's nodes as ``m1_<name>``, the weighted sum of their votes.

    weights: one per member, positive; they are divided by their sum (None: equal). Raises InputError for members that
    read another input, mean another dialect, or do not end in a vote over the same classes.
    """
    shares = _shares(len(members), weights)
    check_members(members)
    first = members[0]
    nodes: list[Node] = [first.by_name["input"]]
    votes = []
    for number, (member, share) in enumerate(zip(members, shares, strict=True), start=1):
        nodes += [_renamed(node, number, share) for node in member.nodes if node.name not in _ENDS]
        votes.append(Operand(f"m{number}_vote"))
    nodes.append(replace(first.by_name["output"], operands=tuple(votes)))
    about = {key: value for key, value in first.metadata.items() if key != "grid"} | {"joint": {"weights": shares}}
    return Program(tuple(nodes), first.dt, about)


def _renamed(node: Node, number: int, share: float) -> Node:
    def name(given: str) -> str:
        return given if given in _ENDS else f"m{number}_{given}"

    sources = tuple(Operand(name(source.node), source.delay) for source in node.operands)
    made = replace(node, name=name(node.name), operands=sources)
    if node.name == "vote" and isinstance(made, Linear):
        made = replace(made, weight=round_to_grid(np.asarray(made.weight) * share, _WEIGHT_BITS))
    return made


def _shares(members: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * members if weights is None else list(weights)
    if not members or len(given) != members or not all(np.isfinite(w) and w > 0 for w in given):
        raise InputError(f"expected one finite weight above 0 for each of {members} members; found {given}")
    return [weight / sum(given) for weight in given]


def check_members(members: Sequence[Program]) -> None:
    """Raise InputError as `merge` does, without merging."""
    for number, member in enumerate(members, start=1):
        _check_member(number, member, members[0])


def _check_member(number: int, member: Program, first: Program) -> None:
    for key in ("input", "dialect", "decision"):
        stated, wanted = member.metadata.get(key), first.metadata.get(key)
        if stated != wanted:
            if isinstance(stated, Mapping) and isinstance(wanted, Mapping):
                differ = [name for name in {**wanted, **stated} if stated.get(name) != wanted.get(name)]
                stated, wanted = ({name: side.get(name) for name in differ} for side in (stated, wanted))
            raise InputError(f"member {number}: expected {key} {wanted} as the first member has; found {stated}")
    if not isinstance(member.by_name.get("vote"), Linear):
        raise InputError(f"member {number}: expected a network that ends in a vote; found none")
    for end in (Input, Output):
        found_shape, wanted_shape = (list(next(program.of(end)).shape) for program in (member, first))
        if found_shape != wanted_shape:
            raise InputError(
                f"member {number}: expected {end.__name__.lower()} {wanted_shape} as the first member has; found "
                f"{found_shape}"
            )
