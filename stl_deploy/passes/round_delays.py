"""Round delays between two steps to one: (1 − f)·x[t − k] + f·x[t − k − 1] becomes x[t − k] or x[t − k − 1].

Learned delays (DCLS, interpolation) reach a synapse as two weights w_k, w_(k+1) of one sign at neighbouring steps.
Their sum goes to the step nearest to the mean delay (k·w_k + (k + 1)·w_(k+1)) / (w_k + w_(k+1)), halves upwards.
This changes what the network computes; the pass says by how much. Synapses with more taps have no single delay
and stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.program import Linear, Program, Scale
from stl_deploy.passes.base import Nodes, Pass, Rewritten, with_nodes
from stl_deploy.passes.merge_delays import LateTerm, late_terms, without


def _round(program: Program) -> Rewritten:
    rewritten, moved, spread = dict(program.by_name), [], 0
    for name in program.by_name:
        for kind in (Linear, Scale):
            for terms in late_terms(rewritten, name, kind).values() if name in rewritten else ():
                shape = _weights(rewritten, terms[0]).shape
                alike = [term for term in terms if _weights(rewritten, term).shape == shape]
                if len({term.lag for term in alike}) == len(alike) > 1:
                    shifts, more = _of_terms(rewritten, sorted(alike, key=lambda term: term.lag), name)
                    moved.append(shifts)
                    spread += more
    shifts = np.concatenate([np.zeros(0), *moved])
    if not shifts.size:
        return Rewritten(program, notes=(_left(spread),) if spread else ())
    said = (
        f"delays rounded to steps: {shifts.size:,} synapses, by {shifts.mean():.2g} steps on average and "
        f"{shifts.max():.2g} at most; evaluate the network again"
    )
    return Rewritten(with_nodes(program, rewritten), notes=(said, _left(spread)) if spread else (said,))


def _left(synapses: int) -> str:
    return f"{synapses:,} synapses have taps at more than two neighbouring steps or of both signs, and stay as they are"


def _weights(nodes: Nodes, term: LateTerm) -> NDArray[Any]:
    layer = nodes[term.layer]
    assert isinstance(layer, Linear | Scale)
    return layer.weight if isinstance(layer, Linear) else np.broadcast_to(layer.scale, layer.shape)


def _of_terms(nodes: Nodes, terms: list[LateTerm], reader: str) -> tuple[NDArray[np.float64], int]:
    """Round the synapses of layers that weigh one signal at different delays; returns by how many steps each moved."""
    taps = np.stack([_weights(nodes, term).astype(np.float64) for term in terms])
    shape = [-1, *[1] * (taps.ndim - 1)]
    lags = np.array([term.lag for term in terms], np.float64).reshape(shape)
    used = taps != 0
    first = np.where(used, lags, np.inf).min(axis=0)
    last = np.where(used, lags, -np.inf).max(axis=0)
    one_sign = (taps >= 0).all(axis=0) | (taps <= 0).all(axis=0)
    pair = (used.sum(axis=0) == 2) & (last - first == 1) & one_sign
    several = int(((used.sum(axis=0) > 1) & ~pair).sum())
    total = taps.sum(axis=0)
    mean = np.divide((taps * lags).sum(axis=0), total, out=np.zeros_like(total), where=pair)
    nearest = np.floor(mean + 0.5)
    rounded = np.where(pair, np.where(lags == nearest, total, 0.0), taps)
    _write(nodes, terms, rounded, reader)
    return np.abs(nearest - mean)[pair], several


def _write(nodes: Nodes, terms: list[LateTerm], taps: NDArray[np.float64], reader: str) -> None:
    """Give layers their rounded weights; those of zeros alone go, their bias to the first that stays."""
    biases: dict[int, Any] = {}
    for term in terms:
        layer = nodes[term.layer]
        if isinstance(layer, Linear) and layer.bias is not None:
            # A bias that is read late is absent in the first steps: only layers read as late can add it up.
            biases[term.behind] = biases.get(term.behind, 0) + layer.bias
    unused = []
    for i in sorted(range(len(terms)), key=lambda i: not taps[i].any()):  # those of zeros last
        layer, bias = nodes[terms[i].layer], biases.pop(terms[i].behind, None)
        if not (taps[i].any() or bias is not None or (i == 0 and not taps.any())):
            unused.append(terms[i])
        elif isinstance(layer, Linear):
            nodes[layer.name] = replace(layer, weight=taps[i], bias=bias)
        elif isinstance(layer, Scale):
            nodes[layer.name] = replace(layer, scale=taps[i])
    without(nodes, unused, reader)


PASS = Pass("round_delays", _round, "asked", wanted=lambda options: options.delays == "steps")
