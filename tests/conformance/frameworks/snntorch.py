"""snnTorch 1.0: Leaky, Synaptic, RLeaky, RSynaptic; ``reset`` subtract (its default), zero or none; ``reset_delay``."""

import nir
import snntorch as snn
import torch
from frameworks._torch import full, stacked, synapse, tensor, watch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from worker import Unsupported


def _neuron(layer, reset, delay):
    if "theta" not in layer:
        raise Unsupported(f"no NIR export of {layer['op']}")
    common = dict(threshold=full(layer, layer["theta"]), reset_mechanism=reset, init_hidden=True)
    common["reset_delay"] = delay
    if layer["op"] == "rcuba" and not delay:
        raise Unsupported("RSynaptic fails in its own forward with reset_delay=False")
    beta, beta_syn = (full(layer, layer.get(key, 0)) for key in ("beta", "beta_syn"))
    if layer["op"] == "lif":
        return snn.Leaky(beta=beta, **common)
    if layer["op"] == "if":
        return snn.Leaky(beta=full(layer, 1), **common)
    if layer["op"] == "cuba":
        return snn.Synaptic(alpha=beta_syn, beta=beta, **common)
    if layer["op"] == "rlif":
        module = snn.RLeaky(beta=beta, linear_features=layer["shape"][0], **common)
    elif layer["op"] == "rcuba":
        module = snn.RSynaptic(alpha=beta_syn, beta=beta, linear_features=layer["shape"][0], **common)
    else:
        raise Unsupported(f"no NIR export of {layer['op']}")
    module.recurrent.weight.data, module.recurrent.bias.data = tensor(layer["weight"]), tensor(layer["bias"])
    return module


def export(layers, x, path, reset="subtract", reset_delay="yes"):
    modules = [synapse(layer) or _neuron(layer, reset, reset_delay == "yes") for layer in layers]
    net = torch.nn.Sequential(*modules)
    neurons = [m for m in modules if isinstance(m, snn.SpikingNeuron)]
    x = torch.from_numpy(x)
    graph = export_to_nir(net, x[0, :1], ignore_dims=[0])
    nir.write(path, graph)
    for neuron in neurons:
        for state in ("mem", "spk", "syn"):
            if hasattr(neuron, state):
                setattr(neuron, state, torch.zeros(0))
    outputs = watch(neurons)
    with torch.no_grad():
        for step in x:
            net(step)
    return stacked(outputs)


def load(path, x):
    net = import_from_nir(nir.read(path))
    neurons = [m for m in net.modules() if isinstance(m, snn.SpikingNeuron)]
    outputs = watch(neurons)
    state = None
    with torch.no_grad():
        for step in torch.from_numpy(x):
            _, state = net(step, state)
    return stacked(outputs)
