"""Tell batch norms that saw no data from trained ones, and give them drawn statistics.

A mean of 0 hides the constants that each trained norm has: padding behind a norm is then 0, and a norm is a factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stl_deploy.tracing.recognition.thresholds import constant_of
from stl_deploy.tracing.unrolling.steps import Steps


def initial_norms(steps: Steps) -> int:
    """Return how many batch norms of a step still have their initial statistics."""
    norms = [signal for signal in steps.signals if "batch_norm" in signal.node.name]
    statistics = [(norm.node.place.module, *map(constant_of, norm.args[3:5])) for norm in norms]
    return len({module for module, mean, variance in statistics if _are_initial(mean, variance)})


def _are_initial(mean: object, variance: object) -> bool:
    if not (isinstance(mean, Tensor) and isinstance(variance, Tensor)):
        return False
    return not mean.any() and bool((variance == 1).all())


@contextmanager
def drawn_statistics(model: nn.Module) -> Iterator[bool]:
    """Give batch norms without statistics drawn ones inside the context; yield whether there are any.

    Example:
        >>> with drawn_statistics(model):
        ...     net = stl_deploy.capture(model, x)
    """
    norms: list[tuple[Tensor, Tensor]] = []
    for module in nn.Module.modules(model):
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if mean is not None and variance is not None and _are_initial(mean, variance):
            norms.append((mean, variance))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mean, variance in norms:
            mean.normal_(0, 0.3, generator=generator)
            variance.uniform_(0.5, 1.5, generator=generator)
    try:
        yield bool(norms)
    finally:
        with torch.no_grad():
            for mean, variance in norms:
                mean.zero_()
                variance.fill_(1)
