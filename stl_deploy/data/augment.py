"""Training images moved and mirrored at random."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, generator: torch.Generator, *, shift: int = 0, flip: bool = False) -> Tensor:
    """Images ``[B, ..., H, W]``, each moved by up to ``shift`` pixels along both axes and half of them mirrored.

    What moves in is 0. All frames or channels of a sample move alike.
    """
    batch, (height, width) = len(images), images.shape[-2:]
    if shift:
        padded = functional.pad(images, (shift, shift, shift, shift)).flatten(1, -3)
        down, right = torch.randint(0, 2 * shift + 1, (2, batch), generator=generator)
        rows = (down[:, None] + torch.arange(height))[:, None, :, None]
        columns = (right[:, None] + torch.arange(width))[:, None, None, :]
        samples, planes = torch.arange(batch)[:, None, None, None], torch.arange(padded.shape[1])[:, None, None]
        images = padded[samples, planes, rows, columns].reshape(images.shape)
    if flip:
        mirrored = torch.rand(batch, generator=generator) < 0.5
        images = torch.where(mirrored.reshape(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)
    return images
