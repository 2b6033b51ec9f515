"""In snnTorch's environment: one sample after the other through a chain that benchmarks.c_speed wrote.

    python -m benchmarks.peers.snntorch_single CHAIN.npz ROUNDS

CHAIN: ``kinds`` (conv, linear, neuron, pool, reshape), ``<i>.weight``, ``<i>.bias``, ``<i>.decay``, ``<i>.threshold``
where it has them, and ``x`` [T, B, *shape]. Prints JSON: version, ``seconds`` of each sample (the least of the
rounds), and ``y`` [T, B, n], flat.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import numpy as np
import snntorch
import torch
from torch import Tensor, nn


class Chain(nn.Module):
    """Layers one after the other, a step at a time; neurons are `Leaky`, reset to 0 in the step of the spike."""

    def __init__(self, arrays: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _layer(str(kind), {key.partition(".")[2]: arrays[key] for key in arrays.files if key.startswith(f"{i}.")})
            for i, kind in enumerate(arrays["kinds"])
        )

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """``[T, 1, *shape]`` to ``[T, 1, n]``, from rest."""
        potentials = {}
        out = []
        for now in x:
            for i, layer in enumerate(self.layers):
                if isinstance(layer, snntorch.Leaky):
                    if i not in potentials:
                        potentials[i] = torch.zeros_like(now)
                    now, potentials[i] = layer(now, potentials[i])
                else:
                    now = layer(now)
            out.append(now)
        return torch.stack(out)


def _layer(kind: str, arrays: dict[str, Any]) -> nn.Module:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if kind == "pool":
        return nn.MaxPool2d(2)
    if kind == "reshape":
        return nn.Flatten()
    if kind == "neuron":
        kinds = {"reset_mechanism": "zero", "reset_delay": False}
        return snntorch.Leaky(beta=float(tensors["decay"]), threshold=tensors["threshold"], **kinds)
    weight = tensors["weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1) if kind == "conv" else None
    made: nn.Module = conv or nn.Linear(weight.shape[1], weight.shape[0])
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = nn.Parameter(tensors["bias"], requires_grad=False) if "bias" in tensors else None
    return made


def main(path: str, rounds: int) -> None:
    """Time them."""
    torch.set_num_threads(1)
    with np.load(path, allow_pickle=False) as arrays:
        net, x = Chain(arrays).eval(), torch.from_numpy(arrays["x"])
    samples = [x[:, i : i + 1].contiguous() for i in range(x.shape[1])]
    outputs = [net(given) for given in samples]
    seconds = [math.inf] * len(samples)
    for _ in range(rounds):
        for i, given in enumerate(samples):
            start = time.perf_counter()
            net(given)
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    y = torch.cat(outputs, 1)
    print(json.dumps({"version": snntorch.__version__, "seconds": seconds, "y": y.flatten().tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
