"""Encode images as sequences ``[T, B, *shape]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stl_deploy.config.schema import Encoder
from stl_deploy.graph.program import InputCoding

if TYPE_CHECKING:  # names of datasets and encoders are listed without torch
    import torch
    from torch import Tensor

EVENT_ENCODERS: tuple[Encoder, ...] = ("spikes", "counts")
"""The encoders of frames of events."""
TIMED_ENCODERS: tuple[Encoder, ...] = (*EVENT_ENCODERS, "sequence", "axes", "bands")
"""The encoders of what carries time itself; the others are of images."""


def encode(images: Tensor, T: int, encoder: Encoder, generator: torch.Generator | None = None) -> Tensor:
    """Encode images ``[B, *shape]`` with values in [0, 1], or frames of events, as a sequence ``[T, B, *shape]``.

    Images:

    - ``direct``: the image itself at every step (a view, not a copy).
    - ``bernoulli``: a spike where the pixel is at least a number drawn uniformly from [0, 1) at each step, as in the
      STL-SNN authors' code, from ``generator`` (default: torch's global one).
    - ``latency``: one spike for each pixel above 0, at step round((1 − pixel)·(T − 1)), the brightest first.

    Frames ``[B, T, *shape]``, added up if T is 1: ``counts`` gives the events of a pixel, ``spikes`` whether there was
    any, ``sequence`` the values unchanged, ``axes`` and ``bands`` the counts from `stl_deploy.data.sensors`.
    """
    import torch

    if encoder in TIMED_ENCODERS:
        frames = images.sum(1, keepdim=True) if T == 1 else images
        return ((frames > 0).to(images.dtype) if encoder == "spikes" else frames).transpose(0, 1).contiguous()
    if encoder == "direct":
        return images.unsqueeze(0).expand(T, *images.shape)
    if encoder == "latency":
        due = torch.where(images > 0, ((1 - images) * (T - 1)).round(), T)
        steps = torch.arange(T, device=images.device).reshape(T, *(1,) * images.dim())
        return (due == steps).to(images.dtype)
    draws = torch.rand((T, *images.shape), generator=generator, device=images.device)
    return (images >= draws).to(images.dtype)


def input_coding(encoder: Encoder) -> InputCoding:
    """Return the input coding of an encoder: 0/1 events (AC), integers or reals (MAC)."""
    codings: dict[Encoder, InputCoding] = {"direct": "analog", "sequence": "analog"}
    codings |= dict.fromkeys(("counts", "axes", "bands"), "graded")
    return codings.get(encoder, "spikes")
