"""Tell batch norms that saw no data from trained ones, and give them drawn statistics.

A mean of 0 hides the constants that each trained norm has: padding behind a norm is then 0, and a norm is a factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def initial_norms(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return mean and variance of each batch norm that still has its initial ones, 0 and 1."""
    pairs = ((getattr(m, "running_mean", None), getattr(m, "running_var", None)) for m in nn.Module.modules(model))
    return [
        (mean, variance)
        for mean, variance in pairs
        if isinstance(mean, Tensor) and isinstance(variance, Tensor) and not mean.any() and bool((variance == 1).all())
    ]


@contextmanager
def drawn_statistics(model: nn.Module) -> Iterator[bool]:
    """Give batch norms without statistics drawn ones inside the context; yield whether there are any.

    Example:
        >>> with drawn_statistics(model):
        ...     net = stl_deploy.capture(model, x)
    """
    norms, generator = initial_norms(model), torch.Generator().manual_seed(0)
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
