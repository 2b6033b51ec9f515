"""Torch's functions of attention and instance norms, written with samples in the first axis and finite values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from stl_deploy.tracing.recording.decomposed import Decomposed


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    width: int,
    heads: int,
    weight: Tensor | None,
    bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    adds_zero: bool,
    dropout: float,
    out_weight: Tensor,
    out_bias: Tensor | None,
    **options: Any,
) -> Any:
    """Compute ``functional.multi_head_attention_forward`` of tensors ``[tokens, samples, width]``.

    Options that a step has no form for give NotImplemented: masks by sample, further keys, dropout.
    """
    mask = options.get("attn_mask")
    by_sample = options.get("key_padding_mask") is not None or (mask is not None and mask.dim() > 2)
    further = any(options.get(name) is not None for name in ("static_k", "static_v")) or bias_k is not None or adds_zero
    if query.dim() != 3 or by_sample or further or (options.get("training", True) and dropout):
        return NotImplemented
    own: list[Any] = [options.get(name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
    weights = own if weight is None else weight.chunk(3)
    biases = [None] * 3 if bias is None else bias.chunk(3)
    q, k, v = (
        torch.unflatten(functional.linear(x.transpose(0, 1), w, b), -1, (heads, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    shares = _shares(q, k, mask if mask is None or mask.dtype != torch.bool else ~mask)
    made = functional.linear((shares @ v).transpose(1, 2).flatten(2), out_weight, out_bias).transpose(0, 1)
    if not options.get("need_weights", True):
        return made, None
    return made, shares.mean(1) if options.get("average_attn_weights", True) else shares


def _dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Compute ``functional.scaled_dot_product_attention`` without dropout, of as many keys' heads as queries'."""
    if dropout_p or enable_gqa:
        return NotImplemented
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    return _shares(query, key, attn_mask, scale) @ value


def _shares(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Return how much each query takes of each key. mask: True where it may, or what is added, -inf where it may not.

    No value is infinite: the least of float32 stands for it.
    """
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(-1)
    least = torch.finfo(torch.float32).min
    added = torch.where(mask, 0.0, least) if mask.dtype == torch.bool else mask.clamp_min(least)
    return (scores + added).softmax(-1)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute ``functional.instance_norm``: a group norm with a group for each channel, or a batch norm."""
    if use_input_stats:
        return functional.group_norm(x, x.shape[1], weight, bias, eps)
    return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "multi_head_attention_forward": _attention,
    "scaled_dot_product_attention": _dot_product_attention,
    "instance_norm": _instance_norm,
}


@contextmanager
def samples_first(mode: Decomposed) -> Iterator[None]:
    """Let torch's modules call these functions, and note in ``mode`` which they called."""
    own = {name: getattr(functional, name) for name in FUNCTIONS}

    def written(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made = FUNCTIONS[name](*args, **kwargs)
            if made is NotImplemented:
                return own[name](*args, **kwargs)
            compared = None
            if mode.compares:
                with _disable_current_modes():
                    compared = own[name](*args, **kwargs)
            mode.note(name, made, compared)
            return made

        return call

    for name in FUNCTIONS:
        setattr(functional, name, written(name))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(functional, name, function)
