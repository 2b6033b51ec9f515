"""Run composite operations as torch's own table spells them out: layer norms, softmax, GELU and the like.

The table rounds otherwise than torch's kernels, so all runs of one capture are spelled out, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from stl_deploy.tracing.recording.operations import map_tree
from stl_deploy.tracing.recording.recorder import is_composite
from stl_deploy.tracing.recording.watched import leaves


def _variance_and_mean(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the mean square of what differs from the mean, and the mean; the table leaves variance as it is."""
    dims = dim or list(range(x.dim()))
    apart = x - x.mean(dims, keepdim=True)
    count = prod(x.shape[axis] for axis in dims) - (1 if correction is None else correction)
    return (apart * apart).sum(dims, keepdim=keepdim) / max(0, count), x.mean(dims, keepdim=keepdim)


def _group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *sizes: Any) -> tuple[Tensor, ...]:
    """Apply weight and bias to the normalised values; the table's own way from them leads over memory's strides."""
    made, *rest = decomposition_table[torch.ops.aten.native_group_norm.default](x, None, None, *sizes)
    each = (-1, *(1 for _ in range(x.dim() - 2)))
    made = made if weight is None else made * weight.view(each)
    return made if bias is None else made + bias.view(each), *rest


_OWN: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.var.correction: lambda *args, **kwargs: _variance_and_mean(*args, **kwargs)[0],
    torch.ops.aten.var_mean.correction: _variance_and_mean,
    torch.ops.aten.native_group_norm.default: _group_norm,
}
"""Forms that stand in place of the table's."""


_OVER_AXES = frozenset(
    (
        *("native_layer_norm", "native_group_norm", "_fused_rms_norm"),
        *("var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "dist", "logsumexp"),
        *("_softmax", "_log_softmax", "_safe_softmax", "_scaled_dot_product_flash_attention_for_cpu"),
        *("glu", "baddbmm", "hardswish", "_prelu_kernel", "log_sigmoid_forward"),
    )
)
"""Operations that are spelled out besides those that torch tags as pointwise."""


class Decomposed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run operations by torch's table. kept: names of those that run as they are.

    names: what was spelled out. apart: of a run with ``compares``, the largest difference of each from torch's own
    kernel, relative to the largest value.
    """

    def __init__(self, kept: Set[str], *, compares: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept, self.compares = kept, compares
        self.names: set[str] = set()
        self.apart: dict[str, float] = {}
        self._open: list[Any] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch.compile is to be loaded, so that it leaves this class out; records run without it anyway."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace == "prims":  # what the table makes, of which each is one of ATen's
            return getattr(func, "impl_aten", func)(*args, **kwargs)
        name, spelled = _spelled(func)
        if spelled is None or name in self.kept or func in self._open or not any(map(_is_real, leaves((args, kwargs)))):
            return func(*args, **kwargs)
        composite, own = is_composite(func), None
        if self.compares and not self._open and not composite:
            with _disable_current_modes():
                own = func(*map_tree(args, Tensor, Tensor.clone), **kwargs)
        opened = [] if composite else [func]
        self._open += opened
        try:
            with self:
                made = spelled(*args, **kwargs)
        finally:
            del self._open[len(self._open) - len(opened) :]
        if made is NotImplemented:
            return func(*args, **kwargs)
        self.names.add(name)
        if own is not None:
            with _disable_current_modes():
                self.apart[name] = max(self.apart.get(name, 0.0), _apart(own, made))
        return made


def _is_real(item: object) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point()


@cache
def _spelled(func: Any) -> tuple[str, Callable[..., Any] | None]:
    """Return an operation's name, and the function that spells it out; None if there is none."""
    name = str(func._schema.name.split("::")[1])
    returns = [each.alias_info for each in func._schema.returns]
    if func.namespace != "aten":
        return name, None
    if is_composite(func):
        return name, func.decompose
    if not (torch.Tag.pointwise in func.tags or name.removesuffix("_") in _OVER_AXES):
        return name, None
    if not any(returns):
        return name, _OWN.get(func) or decomposition_table.get(func)
    name = name.removesuffix("_")
    pure = getattr(getattr(torch.ops.aten, name, None), func._overloadname, None)
    spelled = None if len(returns) > 1 or pure is None else _spelled(pure)[1]
    return name, spelled and (lambda x, *args, **kwargs: x.copy_(spelled(x, *args, **kwargs)))


def _apart(own: Any, made: Any) -> float:
    """Return the largest difference between the first tensors of two results, relative to the largest value."""
    a, b = (next(item for item in leaves(made) if isinstance(item, Tensor)).double() for made in (own, made))
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    largest = torch.where(a.isfinite(), a, 0.0).abs().max()
    return float(difference.max() / largest.clamp_min(torch.finfo(torch.float32).tiny)) if a.numel() else 0.0
