"""Random streams that depend on seed, purpose and epoch alone, so that a resumed run draws the same."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

Purpose = Literal["weights", "order", "encoder", "dropout", "evaluation", "augment"]
_CODES: dict[Purpose, int] = {"weights": 1, "order": 2, "encoder": 3, "dropout": 4, "evaluation": 5, "augment": 6}


def derived_seed(seed: int, purpose: Purpose, epoch: int = 0) -> int:
    """Return a 63-bit seed for one purpose in one epoch."""
    state = np.random.SeedSequence([seed, _CODES[purpose], epoch]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def generator(seed: int, purpose: Purpose, epoch: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose in one epoch."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, epoch))
