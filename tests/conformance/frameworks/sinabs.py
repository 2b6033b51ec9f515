"""Sinabs 3.1: LIF and IAF; ``reset`` subtract with several spikes (its default) or hard with one."""

import nir
import numpy as np
import sinabs.layers as sl
import torch
from frameworks._torch import full, ordered, synapse, tensor, watch
from sinabs.activation import MembraneReset, SingleSpike
from sinabs.nir import from_nir, to_nir
from worker import Unsupported

NEURONS = (sl.LIF, sl.IAF)


def _neuron(layer, reset, norm):
    if "theta" not in layer:
        raise Unsupported(f"no NIR export of {layer['op']}")
    # With its input scaled by 1 - beta, the threshold is scaled with it, so that there are spikes to compare.
    theta = layer["theta"] * (1 - layer.get("beta", 0) * (norm and layer["op"] == "lif"))
    common = dict(spike_threshold=full(layer, theta))
    if reset == "hard":
        common |= dict(spike_fn=SingleSpike, reset_fn=MembraneReset())
    if layer["op"] == "lif":
        tau = full(layer, -1 / np.log(np.float64(layer["beta"])))
        return sl.LIFSqueeze(tau_mem=tau, norm_input=norm, batch_size=1, **common)
    if layer["op"] == "if":
        return sl.IAFSqueeze(batch_size=1, **common)
    raise Unsupported(f"no NIR export of {layer['op']}")


def export(layers, x, path, reset="subtract", norm="no", reader="no"):
    norm = norm == "yes"
    if any(layer["op"] == "avgpool" for layer in layers):
        raise Unsupported("no NIR export of an average pool")
    modules = [
        sl.SumPool2d(layer["kernel"]) if layer["op"] == "sumpool" else synapse(layer) or _neuron(layer, reset, norm)
        for layer in layers
    ]
    net = torch.nn.Sequential(*modules)
    graph = to_nir(net, tensor(x[0, :1]))
    graph.infer_types()
    nir.write(path, graph)
    if reader == "yes":
        return load(path, x)
    return _run(net, [m for m in modules if isinstance(m, NEURONS)], x)


def _run(net, neurons, x):
    batch = x.shape[1]
    for neuron in neurons:
        neuron.batch_size, neuron.num_timesteps = batch, -1
        neuron.reset_states() if neuron.is_state_initialised() else None
    # Squeeze layers take [batch * time, ...], batch first.
    flat = tensor(x).transpose(0, 1).flatten(0, 1)
    outputs = watch(neurons)
    with torch.no_grad():
        net(flat)
    return [found[0].reshape(batch, len(x), *found[0].shape[1:]).transpose(0, 1).numpy() for found in outputs]


def load(path, x, reset="subtract"):
    net = from_nir(nir.read(path), batch_size=x.shape[1])
    neurons = [m for m in net.modules() if isinstance(m, NEURONS)]
    for neuron in neurons:
        if reset == "hard":
            neuron.spike_fn, neuron.reset_fn = SingleSpike, MembraneReset()
            neuron.min_v_mem = None
    flat = tensor(x).transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        neurons = ordered(neurons, lambda: net(flat))
    return _run(net, neurons, x)
