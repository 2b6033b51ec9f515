"""Runs inside a framework's own environment: the framework's own counts of the net in an npz, as JSON on stdout.

python worker.py neurobench|spikingjelly|sinabs net.npz
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

Arrays = dict[str, Any]


def _layers(a: Arrays) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv1 = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
    conv2 = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=True)
    fc = nn.Linear(96, 10, bias=False)
    conv1.weight.data, conv2.weight.data = torch.tensor(a["w1"]), torch.tensor(a["w2"])
    conv2.bias.data, fc.weight.data = torch.tensor(a["b2"]), torch.tensor(a["w3"])
    return conv1, conv2, fc


def neurobench(a: Arrays) -> dict[str, Any]:
    import snntorch as snn
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
    from neurobench.models import SNNTorchModel
    from torch.utils.data import DataLoader, TensorDataset

    conv1, conv2, fc = _layers(a)

    def neuron(**options: Any) -> nn.Module:
        found: nn.Module = snn.Leaky(
            beta=1.0, threshold=float(a["threshold"]), init_hidden=True, reset_mechanism="subtract", **options
        )
        return found

    net = nn.Sequential(conv1, neuron(), conv2, neuron(), nn.Flatten(), fc, neuron(output=True))
    x = torch.tensor(a["x"]).transpose(0, 1)
    data = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
    metrics = [[ParameterCount, ConnectionSparsity], [SynapticOperations, ActivationSparsity, MembraneUpdates]]
    results: dict[str, Any] = Benchmark(SNNTorchModel(net), data, [], [], metrics).run(quiet=True)
    return results


def spikingjelly(a: Arrays) -> dict[str, Any]:
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.op_counter import ACCounter, DispatchCounterMode, MACCounter, SynOpCounter

    conv1, conv2, fc = _layers(a)

    def cell() -> nn.Module:
        found: nn.Module = neuron.IFNode(v_threshold=float(a["threshold"]), v_reset=None)
        return found

    cells = [cell(), cell(), cell()]
    net = nn.Sequential(conv1, cells[0], conv2, cells[1], nn.Flatten(), fc, cells[2])
    synops, acs, macs = SynOpCounter(), ACCounter(), MACCounter()
    spikes = 0
    with torch.no_grad(), DispatchCounterMode([synops, acs, macs]):
        outputs = [net(step) for step in torch.tensor(a["x"])]
    functional.reset_net(net)
    spikes = int(torch.stack(outputs).sum())
    return {
        "synops": int(synops.get_total()),
        "acs": int(acs.get_total()),
        "macs": int(macs.get_total()),
        "output_spikes": spikes,
    }


def sinabs(a: Arrays) -> dict[str, Any]:
    import sinabs as library
    import sinabs.activation as sina
    import sinabs.layers as sl

    conv1, conv2, fc = _layers(a)
    x = torch.tensor(a["x"]).transpose(0, 1)
    batch, steps = x.shape[:2]

    def cell() -> nn.Module:
        found: nn.Module = sl.IAFSqueeze(
            batch_size=batch,
            spike_threshold=float(a["threshold"]),
            spike_fn=sina.SingleSpike,
            reset_fn=sina.MembraneSubtract(),
            min_v_mem=None,
        )
        return found

    net = nn.Sequential(conv1, cell(), conv2, cell(), nn.Flatten(), fc, cell())
    analyzer = library.SNNAnalyzer(net)
    with torch.no_grad():
        output = net(x.flatten(0, 1))
    layers = analyzer.get_layer_statistics()["parameter"]
    return {
        "synops_per_sample": {name: float(stats["synops"]) for name, stats in layers.items()},
        "output_spikes": int(output.sum()),
        "batch": batch,
        "steps": steps,
    }


if __name__ == "__main__":
    _, framework, path = sys.argv
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    torch.manual_seed(0)
    print(json.dumps({"neurobench": neurobench, "spikingjelly": spikingjelly, "sinabs": sinabs}[framework](arrays)))
