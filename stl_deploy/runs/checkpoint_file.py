"""Read state dicts that ``torch.save`` wrote, without running pickled code.

A reader for `isolated`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.isolated import Answer
from stl_deploy.errors import InputError


def read_checkpoint(path: Path) -> Answer:
    """Return name, type and shape of every tensor, and their bytes.

    Raises InputError for a file that holds more than tensors, or no state dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles, which are refused
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch has errors of many types for files that are damaged or hold more than tensors
        if "memory" in str(error):
            raise MemoryError from None
        raise InputError(
            f"{path}: not a file of weights alone ({type(error).__name__}); save model.state_dict()"
        ) from None
    if isinstance(loaded, dict) and not _is_state(loaded):
        states = [value for value in loaded.values() if _is_state(value)]  # a training's checkpoint: one is the model's
        loaded = states[0] if len(states) == 1 else loaded
    if not _is_state(loaded):
        raise InputError(
            f"{path}: expected a state dict of tensors; found a {type(loaded).__name__}; save model.state_dict()"
        )
    forms, contents = [], []
    for name, tensor in loaded.items():
        content = _content(path, name, tensor)
        forms.append((name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)))
        contents.append(content.numpy())
    return forms, contents


def _content(path: Path, name: Any, tensor: Tensor) -> Tensor:
    """Return a tensor's bytes, uint8."""
    if not isinstance(name, str) or tensor.is_complex():
        raise InputError(f"{path}: expected tensors of real numbers by name; found {str(name)!a} of {tensor.dtype}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise InputError(f"{path}: {name!a}: expected a dense tensor; found {tensor.layout} on {tensor.device}")
    try:
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    except RuntimeError as error:
        if "memory" in str(error):
            raise MemoryError from None
        raise InputError(f"{path}: {name!a} cannot be read ({type(error).__name__})") from None


def _is_state(value_of_file: Any) -> bool:
    return (
        isinstance(value_of_file, dict)
        and bool(value_of_file)
        and all(isinstance(value, Tensor) for value in value_of_file.values())
    )
