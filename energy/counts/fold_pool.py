"""Fold pools into the addressing of the weights behind them.

A pooling chip (DYNAP-CNN, Speck) has no pooling stage: an event into the pool is addressed straight to the synapses
of the next layer. Each such event costs the fan-out of the next weights, summed over the windows that hold it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stl_deploy.energy.counts.taps import Ints, Weighted, fan_out, fan_out_nonzero, windows
from stl_deploy.graph.program import Node, Pool, Program, Reshape, is_spike_max_pool


@dataclass(frozen=True)
class Folded:
    """A weighted node behind pools.

    pool: the first pool that an event meets; pools: all of them, the nearest to the weights first;
    max_pool: whether one of them is a max pool; fan_out: taps from each input position of ``pool``; nonzero: those of
    them whose weight is not zero.
    """

    pool: str
    pools: tuple[str, ...]
    max_pool: bool
    fan_out: Ints
    nonzero: Ints


def fold_pools(program: Program, node: Weighted) -> Folded | None:
    """Fold every pool directly before ``node`` into it; return None if there is none.

    Between them may stand reshapes, further pools, and the threshold that makes a sum pool a max pool;
    each must be read without delay and be the only source.
    """
    table, nonzero = fan_out(node), fan_out_nonzero(node)
    here: Node = node
    folded: Folded | None = None
    threshold = False
    while len(here.operands) == 1 and not here.operands[0].delay:
        before = program.by_name[here.operands[0].node]
        if isinstance(before, Pool):
            table, nonzero = _through_pool(before, table), _through_pool(before, nonzero)
            pools = (*(folded.pools if folded else ()), before.name)
            maximum = threshold or (folded is not None and folded.max_pool)
            folded = Folded(before.name, pools, maximum, table, nonzero)
        elif is_spike_max_pool(program, before):
            threshold = True
        elif isinstance(before, Reshape):
            table, nonzero = table.reshape(before.input_shape), nonzero.reshape(before.input_shape)
        else:
            break
        here = before
    return folded


def _through_pool(pool: Pool, table: Ints) -> Ints:
    """Sum ``table`` (per pool output) over the windows that hold each pool input."""
    for axis, window in enumerate(windows(pool), start=table.ndim - len(pool.stride)):
        lead = (slice(None),) * axis
        spread = np.zeros((*table.shape[:axis], window.size, *table.shape[axis + 1 :]), np.int64)
        for k in range(window.kernel):
            outputs, inputs = window.meeting(k)
            spread[(*lead, inputs)] += table[(*lead, outputs)]
        table = spread
    return table
