"""Rockpool 3.1: LIFTorch (a CubaLIF), LinearTorch."""

import math

import nir
import torch
from frameworks._torch import full, tensor
from rockpool.nn.combinators import Sequential
from rockpool.nn.modules import LIFTorch, LinearTorch
from rockpool.nn.modules.torch.nir import from_nir, to_nir
from worker import Unsupported

DT = 1e-3


def _module(layer):
    if layer["op"] == "linear":
        weight = layer["weight"].T.copy()
        return LinearTorch(weight.shape, weight=tensor(weight), bias=tensor(layer["bias"]), has_bias=True)
    if layer["op"] == "cuba":
        tau = {k: full(layer, -DT / math.log(layer[b])) for k, b in (("tau_mem", "beta"), ("tau_syn", "beta_syn"))}
        threshold = full(layer, layer["theta"])
        return LIFTorch(tuple(layer["shape"]), threshold=threshold, bias=full(layer, 0), dt=DT, **tau)
    raise Unsupported(f"no NIR export of {layer['op']}")


def export(layers, x, path):
    modules = [_module(layer) for layer in layers]
    spikes, value = [], tensor(x).transpose(0, 1)
    with torch.no_grad():
        for module in modules:
            value, _, _ = module(value)
            if isinstance(module, LIFTorch):
                spikes.append(value.transpose(0, 1).numpy())
    # Only now, as tracing leaves its traces in the neurons' states.
    nir.write(path, to_nir(Sequential(*modules)))
    return spikes


def load(path, x):
    net = from_nir(nir.read(path))
    with torch.no_grad():
        value, _ = net(tensor(x).transpose(0, 1))
    return [value.transpose(0, 1).numpy()]
