"""Runs inside snnTorch's own environment: writes the net of golden/snntorch.nir.

ENV/bin/python snntorch_worker.py tests/energy/golden/snntorch.nir    (pip install snntorch==1.0.0 nir nirtorch)
"""

from __future__ import annotations

import sys
from typing import Any

import nir
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir


def _leaky(*shape: int) -> Any:
    return snn.Leaky(
        beta=torch.full(shape, 0.875), threshold=torch.ones(shape), init_hidden=True, reset_mechanism="subtract"
    )


def main(path: str) -> None:
    torch.manual_seed(0)
    conv, linear = torch.nn.Conv2d(1, 2, 3, stride=2, padding=1), torch.nn.Linear(18, 3)
    for layer in (conv, linear):
        layer.weight.data *= 4  # so that it fires
    net = torch.nn.Sequential(conv, _leaky(2, 3, 3), torch.nn.Flatten(), linear, _leaky(3))
    nir.write(path, export_to_nir(net, torch.rand(1, 1, 6, 6), ignore_dims=[0]))


if __name__ == "__main__":
    main(sys.argv[1])
