"""Tell data that a network was not trained on, by the statistics that its batch norms kept."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stl_deploy.tracing.without_time import run_in_parts

_FARTHEST, _MOST_TIMES, _FEWEST = 1.0, 4.0, 8
"""Standard deviations between means, ratio of variances, of the median channel; values that tell a channel's."""


def foreign_norm(model: nn.Module, x: Tensor) -> str | None:
    """Return the first batch norm whose inputs on x ``[B, *shape]`` are far from those it was trained on; None if none.

    A norm without statistics yet tells nothing.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    given: dict[str, Tensor] = {}
    hooks = [norm.register_forward_pre_hook(partial(_keep, given, name)) for name, norm in norms.items()]
    try:
        run_in_parts(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, values in given.items() if _is_foreign(norms[name], values)), None)


def _keep(given: dict[str, Tensor], name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
    given.setdefault(name, args[0])


def _is_foreign(norm: _BatchNorm, values: Tensor) -> bool:
    """Return whether mean or variance of the median channel is far from the kept one."""
    mean, variance = norm.running_mean, norm.running_var
    rows = values.movedim(1, 0).flatten(1)
    if mean is None or variance is None or not mean.any() or rows.shape[1] < _FEWEST:
        return False
    shift = (rows.mean(1) - mean).abs() / (variance + norm.eps).sqrt()
    ratio = (rows.var(1, unbiased=False) + norm.eps) / (variance + norm.eps)
    times = ratio.maximum(1 / ratio)
    return bool(shift.median() > _FARTHEST) or bool(times.median() > _MOST_TIMES)
