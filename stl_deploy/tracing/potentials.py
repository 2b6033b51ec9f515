"""The potential of a spiking neuron, read by something else than its own comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from stl_deploy.graph.program import Floats
from stl_deploy.tracing.coefficients import close
from stl_deploy.tracing.evaluation import Evaluation, Unknown
from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.populations import compact
from stl_deploy.tracing.readings import Population
from stl_deploy.tracing.steps import Signal


def late_reset(population: Population) -> Floats | None:
    """What a spike adds to the drive of the next step; None where it sets the potential, or a bound applies to it."""
    threshold = population.core.threshold
    assert threshold is not None
    if population.subtracts == "adapted" or population.v_min is not None:
        return None
    if population.reset not in ("none", "subtract", "subtract_delayed"):
        return None
    shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
    theta = threshold.theta.double().expand((1, *shape))
    factor = {"none": 0 * population.decay, "subtract": -population.decay, "subtract_delayed": -torch.ones(())}
    jump = factor[population.reset] * theta
    gains = population.gains
    if gains and all(torch.equal(gains[0], gain) for gain in gains):  # the neuron's own gain, of all that arrives
        if not bool(gains[0].all()):
            return None
        jump = jump / gains[0]
    return compact(jump, shape)


def left_after(population: Population, signal: Signal) -> Floats | None:
    """c where a signal is h + c·s of the potential h and its spike s; None where it is something else."""
    shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
    try:
        at = {(h, s): _value(population, signal, h, s) for h in (0.0, 0.7312, -2.2749) for s in (0.0, 1.0)}
    except Unknown:
        return None
    change = at[0.0, 1.0]
    for (h, s), found in at.items():
        if not close(found, h + s * change):
            return None
    return compact(change.expand((1, *shape)), shape)


def _value(population: Population, signal: Signal, h: float, s: float) -> Tensor:
    assert population.core.threshold is not None
    fixed = {
        population.state: torch.tensor(h, dtype=torch.float64),
        population.core.threshold.signal: torch.tensor(s if population.core.threshold.count else bool(s)),
    }
    return Evaluation(lambda one, lag: None if lag else fixed.get(one))(signal, 0).double()
