"""Calibrate the thresholds and biases of a converted ANN on a few hundred samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.program import Floats, Program
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.passes.ramps_for_cells import caps
from stl_deploy.passes.spikes_for_relus import Form, channel_axis, relus, spikes_for_relus, tied

_SHARES = np.linspace(0.05, 1.2, 40)
"""Candidate thresholds, as shares of a channel's largest activation."""
_MOST_VALUES = 40_000
_BATCH = 64


def activations(program: Program, x: Tensor) -> dict[str, Tensor]:
    """Return each ReLU's outputs on x ``[B, *shape]``, below its cap, as ``[C, values]``, a row per channel."""
    module = ProgramModule(program)
    limits = _limits(program)
    names = [relu.name for relu in relus(program)]
    parts = [module.observe(part[None], names) for part in torch.split(x, _BATCH)]
    made: dict[str, Tensor] = {}
    for name in names:
        axis = channel_axis(program, program.by_name[name])
        rows = torch.cat([part[name][0] for part in parts]).movedim(1 + axis, 0).flatten(1)
        made[name] = rows.minimum(limits.get(name, torch.tensor(torch.inf)))
    return made


def _limits(program: Program) -> dict[str, Tensor]:
    """Return the cap of each ReLU that has one, as a column that broadcasts to its channels."""
    return {name: torch.from_numpy(cap)[:, None] for name, cap in caps(program).items()}


def least_squares(program: Program, active: Mapping[str, Tensor], levels: int) -> dict[str, Floats]:
    """Return a threshold per channel of each ReLU with the least squared error of its quantised activations.

    A grid search over shares of the channel's largest activation. ReLUs that share thresholds share the error
    (`tied`). No threshold is above a cap. A channel that is never active gets the layer's largest threshold; 1 if
    none is active.
    """
    thresholds: dict[str, Floats] = {}
    limits = _limits(program)
    for names in tied(program):
        values = torch.cat([_some(active[name]) for name in names], 1)
        top = values.amax(1)
        limit = torch.full_like(top, torch.inf)
        for name in set(names) & set(limits):
            limit = limit.minimum(limits[name][:, 0])
        # channel by channel at once: each keeps the share at which its own error was least
        least, best = torch.full_like(top, torch.inf), top.clone()
        for share in _SHARES:
            theta = (top * float(share)).clamp(min=torch.finfo(top.dtype).tiny).minimum(limit)
            unit = (theta / levels)[:, None]
            error = (values - unit * torch.floor(values / unit + 0.5).clamp(0, levels)).square().sum(1)
            better = error < least
            least, best = torch.where(better, error, least), torch.where(better, theta, best)
        largest = best[top > 0].max() if top.any() else best.new_ones(())
        chosen = torch.where(top > 0, best, largest.minimum(limit))
        thresholds |= dict.fromkeys(names, chosen.numpy())
    return thresholds


def _some(values: Tensor) -> Tensor:
    """Return at most `_MOST_VALUES` of each row, drawn from a fixed seed."""
    if values.shape[1] <= _MOST_VALUES:
        return values
    drawn = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(0))
    return values[:, drawn[:_MOST_VALUES]]


def bias_shifts(
    program: Program, thresholds: Mapping[str, Floats], x: Tensor, active: Mapping[str, Tensor], levels: int, form: Form
) -> dict[str, Floats]:
    """Return what each ReLU's mean per channel lacks after conversion, layer by layer (Li et al. 2021, light pipeline).

    x: ``[B, *shape]``, the samples of ``active``.
    """
    steps = 1 if form == "counts" else levels
    shown = x[None].expand(steps, *x.shape)
    shifts = {relu.name: np.zeros_like(thresholds[relu.name]) for relu in relus(program)}
    for relu in relus(program):
        spiking = spikes_for_relus(program, thresholds, levels, form, shifts)
        made = ProgramModule(spiking).observe(shown, [relu.name])[relu.name].mean(0)
        axis = channel_axis(program, relu)
        spikes = made.movedim(1 + axis, 0).flatten(1).mean(1).numpy()
        height = thresholds[relu.name] / (levels if form == "counts" else 1)
        shifts[relu.name] = (active[relu.name].mean(1).numpy() - spikes * height).astype(np.float32)
    return shifts


def accurate(program: Program, x: Tensor, labels: Tensor, steps: int, population: int) -> int:
    """Count the samples of static x ``[B, *shape]`` that a Program decides as labelled, by its mean output."""
    module = ProgramModule(program)
    parts = zip(torch.split(x, _BATCH), torch.split(labels, _BATCH), strict=True)
    with torch.no_grad():
        return sum(right_of(outputs_of(module, part, steps), truth, population) for part, truth in parts)


def outputs_of(module: ProgramModule, x: Tensor, steps: int) -> Tensor:
    """Return the mean output over time on static x ``[B, *shape]``."""
    made: Tensor = module(x[None].expand(steps, *x.shape)).mean(0)
    return made


def right_of(scores: Tensor, labels: Tensor, population: int = 1) -> int:
    """Count the samples whose greatest score, after a vote of ``population`` neighbours, is at the label."""
    votes = scores.reshape(*scores.shape[:-1], -1, population).mean(-1)
    return int((votes.argmax(-1) == labels).sum())
