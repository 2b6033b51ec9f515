"""Bits of the values between layers, by structure: the same for a count, an activation and an image.

A spike has 1 bit, which is that its event is there. A count of at most D has as many as tell 0 to D apart, and so have
sums and maxima of counts, and counts times a number, which goes into the weights behind. Every other value is as wide
as the list's weights, and none is wider. A max pool before a neuron without memory is as narrow as the neuron: rounding
first gives the same, at each position before the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, prod
from typing import NamedTuple

from stl_deploy.energy.counts.record import Counts, Population, ProductCounts, TapCounts, populations
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.graph.program import MaxPool, Neuron, Node, Output, Pool, Product, Program, Scale, is_binary, passes_on


class Width(NamedTuple):
    """Bits of the values that a node reads and writes; narrow: of the narrower operand of a product."""

    read: int
    written: int
    narrow: int


def widths(program: Program, counts: Counts, prices: PriceList) -> Mapping[str, Width]:
    """Return the width at each node, under a list."""
    stands = _Counts(program)
    bits = {name: _bits(highest, prices) for name, highest in stands.most.items()}
    ops: dict[str, TapCounts | ProductCounts] = {**counts.weighted, **counts.pools, **counts.products}
    wide: dict[str, Width] = {}
    for node in program.nodes:
        read = _bits(stands.arriving(node), prices)
        narrow = min((bits[operand.node] for operand in node.operands), default=read)
        if node.name in ops and ops[node.name].op == "AC":
            read, narrow = read if isinstance(node, Product) else 1, 1
        wide[node.name] = Width(read, bits[node.name], narrow)
    for pool in program.of(MaxPool):
        if stands.most[pool.name] == inf:
            behind = [bits[node.name] for node in populations(program) if rounded_pool(program, node) is pool]
            wide[pool.name] = Width(*[max(behind, default=prices.accumulator_bits)] * 3)
    return wide


def rounded_pool(program: Program, node: Population) -> MaxPool | None:
    """Return the max pool that a spiking neuron without memory alone reads."""
    if not isinstance(node, Neuron) or not node.spiking or node.decay is not None or len(node.operands) != 1:
        return None
    pool = program.by_name[node.operands[0].node]
    return pool if isinstance(pool, MaxPool) and len(program.readers[pool.name]) == 1 else None


def roundings(program: Program, node: Population) -> float:
    """Return how often each neuron of a node rounds in an update: once, or at each position of a `rounded_pool`."""
    pool = rounded_pool(program, node)
    return 1.0 if pool is None else prod(pool.input_shape) / prod(pool.shape)


class _Counts:
    """The most spikes that each value of a node stands for; infinite for other values."""

    def __init__(self, program: Program) -> None:
        self.most = {node.name: _fired(program, node) for node in populations(program)}
        self._scaled = set[str]()
        for node in program.nodes:
            if node.name not in self.most:
                moves = isinstance(node, Pool | Output | Scale) or passes_on(node)
                self.most[node.name] = self.arriving(node) if moves else inf
                if isinstance(node, Pool):
                    self.most[node.name] *= prod(node.kernel)
                if isinstance(node, Scale) or (moves and self._of_scaled(node)):
                    self._scaled.add(node.name)

    def arriving(self, node: Node) -> float:
        """Return the most that a value at a node's input stands for; sums in different units are no counts."""
        values = [self.most.get(operand.node, inf) for operand in node.operands]
        if len(values) > 1 and node.combine == "add":
            return inf if self._of_scaled(node) else sum(values)
        return max(values, default=inf)

    def _of_scaled(self, node: Node) -> bool:
        return not self._scaled.isdisjoint(operand.node for operand in node.operands)


def _fired(program: Program, node: Population) -> float:
    if is_binary(program, node.name):
        return 1
    return node.cap or inf if isinstance(node, Neuron) and node.multi_spike else inf


def _bits(highest: float, prices: PriceList) -> int:
    if highest <= 1:
        return 1
    as_wide = highest == inf or prices.numbers == "float"
    return prices.weight_bits if as_wide else min(prices.weight_bits, int(highest).bit_length())
