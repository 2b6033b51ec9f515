"""Norse 1.1: LIFBoxCell, IAFCell. It writes tau = dt/tau_mem_inv, so its files are in units of dt squared."""

import nir
import norse.torch as norse
import torch
from frameworks._torch import full, stacked, synapse, watch
from norse.torch.functional.lif import LIFParameters
from norse.torch.module.iaf import IAFCell, IAFParameters
from norse.torch.module.lif import LIFCell
from norse.torch.module.lif_box import LIFBoxCell, LIFBoxParameters
from norse.torch.utils.export_nir import to_nir
from norse.torch.utils.import_nir import from_nir
from worker import Unsupported

NEURONS = (LIFBoxCell, LIFCell, IAFCell)
DT = 1e-3


def _neuron(layer, v_leak):
    if "theta" not in layer:
        raise Unsupported(f"no NIR export of {layer['op']}")
    # A leaky neuron's input is scaled by 1 - beta; the threshold with it, so that there are spikes to compare.
    # What leaks in by itself is as much for every neuron: a part of the threshold.
    theta = layer["theta"] * (1 - layer["beta"] * (layer["op"] != "if"))
    v_leak = full(layer, v_leak * theta)
    if layer["op"] == "lif":
        rate = (1 - layer["beta"]) / DT
        return LIFBoxCell(
            LIFBoxParameters(tau_mem_inv=full(layer, rate), v_th=full(layer, theta), v_leak=v_leak), dt=DT
        )
    if layer["op"] == "cuba":
        rates = dict(
            tau_mem_inv=full(layer, (1 - layer["beta"]) / DT), tau_syn_inv=full(layer, (1 - layer["beta_syn"]) / DT)
        )
        return LIFCell(LIFParameters(v_th=full(layer, theta), v_leak=v_leak, **rates), dt=DT)
    if layer["op"] == "if":
        return IAFCell(IAFParameters(v_th=full(layer, theta)), dt=DT)
    raise Unsupported(f"no NIR export of {layer['op']}")


def export(layers, x, path, v_leak="0"):
    if any(layer["op"] == "sumpool" for layer in layers):
        raise Unsupported("no NIR export of a sum pool")
    if any(layer["op"] == "flatten" for layer in layers):
        raise Unsupported("no NIR export of a flatten")
    if any(layer["op"] == "avgpool" for layer in layers):
        raise Unsupported("an average pool is skipped by its export without a word")
    modules = [synapse(layer) or _neuron(layer, float(v_leak)) for layer in layers]
    net = norse.SequentialState(*modules)
    x = torch.from_numpy(x)
    graph = to_nir(net, x[0, 0], dt=DT)
    graph.infer_types()
    nir.write(path, graph)
    return _run(net, x)


def _run(net, x):
    outputs = watch([m for m in net.modules() if isinstance(m, NEURONS)])
    state = None
    with torch.no_grad():
        for step in x:
            _, state = net(step, state)
    return stacked(outputs)


def load(path, x, dt=str(DT)):
    graph = nir.read(path)
    return _run(from_nir(graph, dt=float(dt)), torch.from_numpy(x))
