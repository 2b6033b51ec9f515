"""Hold a captured step against its module on other numbers of steps and samples than those of x."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.pipeline.proof import KINDS, ComputesOtherwiseError, of_each_kind, permuted, prove_outputs
from stl_deploy.pipeline.time_axis import ignores_later_steps
from stl_deploy.tracing.trace import Traced, batch_axis

_MANY = 64
"""Steps, and samples, on which branches chosen by the input's shape are looked for."""
_AFFORDED, _AFFORDED_CALLS = 2**25, 20_000
"""Values, and operations, that such a run may compute."""


def prove_other_sizes(model: nn.Module, traced: Traced, x: Tensor) -> tuple[list[str], bool]:
    """Hold the step's graph against the module on one and on many steps and samples, as far as time allows.

    Also whether the module makes a fixed number of steps.
    """
    call, axis = traced.call, batch_axis(traced.call)
    samples = x.shape[axis]
    step = sum(signal.node.elements() for signal in traced.steps.signals)
    fixed = call.time == "inside" or any(
        "Traced" in type(part).__name__ for part in model.modules() if isinstance(part, torch.jit.ScriptModule)
    )
    sizes = [] if fixed else [(max(_MANY, 4 * x.shape[1 - axis]), 2)]
    sizes += [] if call.time == "inside" else [(1, min(samples, 4))]
    sizes += [(traced.length, 1), (traced.length, max(_MANY, 4 * samples))]
    done, fixed_steps = [], False
    for many, few in sizes:
        if many > traced.length:  # as many as a large network affords
            many = min(many, _AFFORDED // (step * few), _AFFORDED_CALLS // len(traced.steps.signals))
        elif few > samples:
            few = min(few, _AFFORDED // (step * many))
        if not many * few or step * many * few > _AFFORDED or len(traced.steps.signals) * many > _AFFORDED_CALLS:
            continue
        given = x.index_select(axis, torch.arange(few) % samples)
        if many != traced.length:
            given = given.index_select(1 - axis, torch.arange(many) % x.shape[1 - axis])
        what = f"{counted(few, 'sample')}" if many == traced.length else f"{counted(many, 'step')}"
        try:
            several = many > traced.length and KINDS * step * many * few <= _AFFORDED
            prove_outputs(model, traced, of_each_kind(given, axis) if several else permuted(given, 6), what)
        except (CaptureError, InputError, RuntimeError, ValueError, AssertionError, IndexError) as error:
            if many > traced.length and ignores_later_steps(model, given, call, traced.length):
                fixed_steps = True
            elif isinstance(error, ComputesOtherwiseError) or getattr(error, "layer", None) is not None:
                raise
            continue
        done.append(what)
    return done, fixed_steps
