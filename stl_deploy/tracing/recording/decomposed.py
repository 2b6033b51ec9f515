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

    def note(self, name: str, made: Any, own: Any = None) -> None:
        """Note what was spelled out; own: what torch's kernel makes, if that is compared."""
        self.names.add(name)
        if own is not None:
            with _disable_current_modes():
                self.apart[name] = max(self.apart.get(name, 0.0), _apart(own, made))

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
                copies = map_tree((args, kwargs), Tensor, Tensor.clone)
                own = func(*copies[0], **copies[1])
        opened = [] if composite else [func]
        self._open += opened
        try:
            with self:
                made = spelled(*args, **kwargs)
        finally:
            del self._open[len(self._open) - len(opened) :]
        if made is NotImplemented:
            return func(*args, **kwargs)
        self.note(name, made, own)
        return made


def _is_real(item: object) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point()


@cache
def _spelled(func: Any) -> tuple[str, Callable[..., Any] | None]:
    """Return an operation's name, and the function that spells it out; None if there is none."""
    name, arguments = str(func._schema.name.split("::")[1]), func._schema.arguments
    if func.namespace != "aten":
        return name, None
    if is_composite(func):
        return name, func.decompose
    written = [each.name for each in arguments if each.alias_info is not None and each.alias_info.is_write]
    if not written:
        is_known = torch.Tag.pointwise in func.tags or name in _OVER_AXES
        return name, _OWN.get(func) or decomposition_table.get(func) if is_known else None
    pure = _pure(name.removesuffix("_"), [(each.name, str(each.type)) for each in arguments if not each.is_out])
    name, spelled = (name, None) if pure is None else _spelled(pure)
    if spelled is None:
        return name, None
    names = [each.name for each in arguments]
    return name, lambda *args, **kwargs: _write(spelled, written, dict(zip(names, args, strict=False)), kwargs)


def _pure(name: str, read: list[tuple[str, str]]) -> Any:
    """Return the operation of this name that reads these arguments and writes none; None if there is none."""
    packet = getattr(torch.ops.aten, name, None)
    for overload in packet.overloads() if packet is not None else ():
        func = getattr(packet, overload)
        arguments = func._schema.arguments
        is_alike = [(each.name, str(each.type)) for each in arguments] == read
        if is_alike and not any(each.alias_info for each in arguments):
            return func
    return None


def _write(spelled: Callable[..., Any], written: list[str], placed: dict[str, Any], named: dict[str, Any]) -> Any:
    """Compute what an operation in place or with ``out=`` computes, and copy that into what it writes."""
    targets = [(placed | named)[name] for name in written]
    made = spelled(*placed.values(), **{name: value for name, value in named.items() if name not in written})
    if made is NotImplemented:
        return made
    results = made if isinstance(made, tuple) else (made,)
    if any(target.shape != result.shape for target, result in zip(targets, results, strict=True)):
        return NotImplemented  # torch's own kernel gives a target another shape, or says why not
    for target, result in zip(targets, results, strict=True):
        target.copy_(result)
    return tuple(targets) if isinstance(made, tuple) else targets[0]


def _apart(own: Any, made: Any) -> float:
    """Return the largest difference between the first tensors of two results, relative to the largest value."""
    a, b = (next(item for item in leaves(made) if isinstance(item, Tensor)).double() for made in (own, made))
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    largest = torch.where(a.isfinite(), a, 0.0).abs().max()
    return float(difference.max() / largest.clamp_min(torch.finfo(torch.float32).tiny)) if a.numel() else 0.0
