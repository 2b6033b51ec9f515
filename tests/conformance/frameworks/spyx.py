"""Spyx 1.0: LIF, IF, CuBaLIF, RLIF, RCuBaLIF. Channels-last; a spike leaves one step after the crossing."""

import jax.numpy as jnp
import nir
import numpy as np
import spyx.nir
from flax import nnx
from spyx import nn
from worker import Unsupported


def _module(layer):
    rngs = nnx.Rngs(0)
    shape = tuple(layer.get("shape", ()))
    shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    match layer["op"]:
        case "linear":
            module = nnx.Linear(*layer["weight"].shape[::-1], rngs=rngs)
            module.kernel[...] = jnp.array(layer["weight"].T)
            module.bias[...] = jnp.array(layer["bias"])
        case "conv":
            outputs, inputs, *kernel = layer["weight"].shape
            pad = [(layer["padding"],) * 2] * 2
            stride = (layer["stride"],) * 2
            module = nnx.Conv(inputs, outputs, kernel, strides=stride, padding=pad, rngs=rngs)
            module.kernel[...] = jnp.array(layer["weight"].transpose(2, 3, 1, 0))
            module.bias[...] = jnp.array(layer["bias"])
        case "sumpool":
            module = nn.SumPool((2, 2), (2, 2), "VALID", channel_axis=-1)
        case "lif":
            if np.ndim(layer["beta"]):
                raise Unsupported("one decay per layer, unless learned")
            module = nn.LIF(shape, beta=layer["beta"], threshold=layer["theta"], rngs=rngs)
        case "if":
            module = nn.IF(shape, threshold=layer["theta"])
        case "cuba":
            module = nn.CuBaLIF(shape, alpha=layer["beta_syn"], beta=layer["beta"], threshold=layer["theta"], rngs=rngs)
        case "rlif":
            module = nn.RLIF(shape, beta=layer["beta"], threshold=layer["theta"], rngs=rngs)
            module.recurrent_w[...] = jnp.array(layer["weight"].T)
        case "rcuba":
            decays = dict(alpha=layer["beta_syn"], beta=layer["beta"])
            module = nn.RCuBaLIF(shape, **decays, threshold=layer["theta"], rngs=rngs)
            module.recurrent_w[...] = jnp.array(layer["weight"].T)
        case _:
            raise Unsupported(f"no layer for {layer['op']}, or no NIR export of it")
    return module


def export(layers, x, path):
    if any(layer["op"] == "flatten" for layer in layers):
        raise Unsupported("its flatten orders values channels-last, which NIR cannot say")
    modules = [_module(layer) for layer in layers]
    shape = np.array(x.shape[2:])
    graph = spyx.nir.to_nir(nn.Sequential(*modules), {"input": shape}, {"output": np.array(layers[-1]["shape"])})
    nir.write(path, graph)
    return _run(modules, x)


def _channels_last(x):
    return jnp.array(x.transpose(0, 1, 3, 4, 2) if x.ndim == 5 else x)


def _run(modules, x):
    value, spikes = _channels_last(x), []
    for module in modules:
        if hasattr(module, "initial_state"):
            value, _ = nn.run(nn.Sequential(module), value)
            found = np.asarray(value)
            spikes.append(found if found.ndim == 3 else found.transpose(0, 1, 4, 2, 3))
        else:
            value = jnp.stack([module(step) for step in value])
    return spikes


def load(path, x):
    model, _ = spyx.nir.from_nir(nir.read(path), _channels_last(x))
    return _run(model.layers, x)
