"""Encode images as sequences ``[T, B, *shape]``, and augment training images at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stl_deploy.config.schema import Augmentation, Encoder
from stl_deploy.graph.program import InputCoding

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def augment(
    images: Tensor, generator: torch.Generator, *, shift: int = 0, flip: bool = False, cutout: int = 0
) -> Tensor:
    """Move images ``[B, ..., H, W]`` by up to ``shift`` pixels along both axes, and mirror half of them.

    What moves in is 0, as is a square of ``cutout`` pixels a side, its middle anywhere in the image. All frames or
    channels of a sample change alike.
    """
    import torch
    from torch.nn import functional

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
    if cutout:
        top, left = (torch.randint(size, (batch, 1), generator=generator) - cutout // 2 for size in (height, width))
        rows, columns = torch.arange(height) - top, torch.arange(width) - left
        inside = ((rows >= 0) & (rows < cutout))[:, :, None] & ((columns >= 0) & (columns < cutout))[:, None]
        images = images.masked_fill(inside.reshape(batch, *[1] * (images.dim() - 3), height, width), 0)
    return images


def transformed(images: Tensor, names: Sequence[Augmentation], generator: torch.Generator) -> Tensor:
    """Apply torchvision's transforms of these names to images ``[B, ..., C, H, W]``; same shape.

    crop: a random part of 70 % to 100 % of the area, resized; flip and flip_vertical: mirrored half of the time;
    rotate: by up to 15 degrees; colour: brightness, contrast and saturation by up to 20 %; erase: a rectangle is
    blotted out half of the time. All frames of a sample change alike. The draws follow from ``generator``; torch's
    global one is left as found.
    """
    import torch

    if not names:
        return images
    transforms = [_transform(name, images.shape[-2:]) for name in names]
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it seeds cards, too, whose generators draw the dropout.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        augmented = []
        for image in images:
            for transform in transforms:
                image = transform(image)
            augmented.append(image)
    return torch.stack(augmented)


def _transform(name: Augmentation, size: Sequence[int]) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2

    made: Any = {
        "crop": lambda: v2.RandomResizedCrop(list(size), scale=(0.7, 1.0), antialias=True),
        "flip": v2.RandomHorizontalFlip,
        "flip_vertical": v2.RandomVerticalFlip,
        "rotate": lambda: v2.RandomRotation(15),
        "colour": lambda: v2.ColorJitter(0.2, 0.2, 0.2),
        "erase": v2.RandomErasing,
    }[name]()
    transform: Callable[[Tensor], Tensor] = made
    return transform


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
        # T is beyond the last step: a pixel of 0 never fires
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
