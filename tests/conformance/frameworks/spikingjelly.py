"""SpikingJelly 2.0: LIFNode (``decay_input``, ``v_reset``), IFNode, CUBALIFNode."""

import numpy as np
import torch
from frameworks._torch import ordered, stacked, synapse, watch
from spikingjelly.activation_based import layer as sj
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir, import_from_nir
from worker import Unsupported


def _neuron(layer, decay_input, v_reset):
    if "theta" not in layer:
        raise Unsupported(f"no NIR export of {layer['op']}")
    if isinstance(layer["theta"], np.ndarray):
        raise Unsupported("one threshold and one decay per layer")
    common = dict(v_threshold=layer["theta"], v_reset=v_reset)
    if layer["op"] == "lif":
        return neuron.LIFNode(tau=1 / (1 - layer["beta"]), decay_input=decay_input, **common)
    if layer["op"] == "if":
        return neuron.IFNode(**common)
    if layer["op"] == "cuba":
        return neuron.CUBALIFNode(c_decay=layer["beta_syn"], v_decay=layer["beta"], **common)
    raise Unsupported(f"no NIR export of {layer['op']}")


def export(layers, x, path, decay_input="no", v_reset="0"):
    if any(layer["op"] == "sumpool" for layer in layers):
        raise Unsupported("no NIR export of a sum pool")
    modules = [
        sj.Flatten()
        if layer["op"] == "flatten"
        else synapse(layer) or _neuron(layer, decay_input == "yes", float(v_reset))
        for layer in layers
    ]
    net = torch.nn.Sequential(*modules)
    x = torch.from_numpy(x)
    export_to_nir(net, x[0, :1], save_path=path)
    outputs = watch([m for m in modules if isinstance(m, neuron.BaseNode)])
    for module in modules:
        if isinstance(module, neuron.BaseNode):
            module.reset()
    with torch.no_grad():
        for step in x:
            net(step)
    return stacked(outputs)


def load(path, x, dt="1e-4"):
    x = torch.from_numpy(x)
    net = import_from_nir(path, dt=float(dt))
    wrappers = [m for m in net.modules() if type(m).__name__ == "_NIRStatefulModule"]
    with torch.no_grad():
        outputs = watch(ordered(wrappers, lambda: net(x[0], None)))
        state = None
        for step in x:
            _, state = net(step, state)
    return stacked(outputs)
