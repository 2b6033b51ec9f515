"""Encoders: images become sequences ``[T, B, *shape]``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stl_deploy.config import Encoder


def encode(images: Tensor, T: int, encoder: Encoder, generator: torch.Generator | None = None) -> Tensor:
    """Images ``[B, *shape]`` with values in [0, 1] as a sequence ``[T, B, *shape]``.

    ``direct`` shows the image itself at every step (a view, no copy). ``bernoulli`` spikes where the pixel is at
    least a number drawn uniformly from [0, 1), anew each step, as in the STL-SNN authors' code; the draws come
    from ``generator`` (default: torch's global one).
    """
    if encoder == "direct":
        return images.unsqueeze(0).expand(T, *images.shape)
    draws = torch.rand((T, *images.shape), generator=generator, device=images.device)
    return (images >= draws).to(images.dtype)


def input_coding(encoder: Encoder) -> Literal["analog", "spikes"]:
    """What an encoder's values are to the first layer: real numbers (MAC) or 0/1 events (AC)."""
    return "analog" if encoder == "direct" else "spikes"
