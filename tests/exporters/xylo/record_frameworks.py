"""Record NIR files that Rockpool and Sinabs write, with input and their own spikes: the tests' ``frameworks`` folder.

Run in an environment that has the framework (Rockpool: ``pip install --no-deps rockpool==3.1.0 nir==1.0.4
nirtorch==2.0.2`` beside torch, numpy, scipy and h5py; Sinabs: ``pip install --no-deps sinabs==3.1.3`` and the same):

    python record_frameworks.py rockpool|sinabs FOLDER

Both are AGPL-3 and no part of stl-deploy.
"""

import sys
from pathlib import Path

import nir
import numpy as np
import torch

STEPS, BATCH, CHANNELS, HIDDEN, OUTPUTS = 40, 4, 6, 12, 4


def rockpool(folder):
    """Two LIFTorch with decays 1 - 2^-k. `to_nir` leaves recurrent weights out of the file, so there are none."""
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFTorch, LinearTorch
    from rockpool.nn.modules.torch.nir import to_nir

    rng = np.random.default_rng(0)

    def lif(size, k_mem, k_syn, theta):
        tau = {name: -1e-3 / np.log(1 - 2.0**-k) for name, k in (("tau_mem", k_mem), ("tau_syn", k_syn))}
        fields = {name: torch.full((size,), float(value)) for name, value in tau.items()}
        fields |= {"threshold": torch.tensor(theta, dtype=torch.float32), "bias": torch.zeros(size)}
        return LIFTorch(size, dt=1e-3, **fields)

    def linear(before, size):
        weight = torch.tensor(rng.normal(0.1, 0.35, (before, size)), dtype=torch.float32)
        return LinearTorch((before, size), weight=weight, has_bias=False)

    layers = [
        linear(CHANNELS, HIDDEN),
        lif(HIDDEN, 3, 2, rng.uniform(0.6, 1.6, HIDDEN)),
        linear(HIDDEN, OUTPUTS),
        lif(OUTPUTS, 2, 1, np.full(OUTPUTS, 6.0)),
    ]
    x = rng.integers(0, 4, (STEPS, BATCH, CHANNELS)) * (rng.random((STEPS, BATCH, CHANNELS)) < 0.4)
    value, spikes = torch.tensor(x, dtype=torch.float32).transpose(0, 1), []
    with torch.no_grad():
        for layer in layers:
            value, _, _ = layer(value)
            if isinstance(layer, LIFTorch):
                spikes.append(value.transpose(0, 1).numpy().astype(np.uint8))
    write(folder, "rockpool", to_nir(Sequential(*layers)), x, spikes)


def sinabs(folder):
    """A LIF with a synapse, which `to_nir` leaves out of the file."""
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(CHANNELS, HIDDEN, bias=False),
        sl.LIFSqueeze(
            tau_mem=torch.full((HIDDEN,), 7.5),
            tau_syn=torch.full((HIDDEN,), 3.5),
            batch_size=BATCH,
            norm_input=False,
            spike_threshold=torch.ones(HIDDEN),
        ),
        torch.nn.Linear(HIDDEN, OUTPUTS, bias=False),
        sl.LIFSqueeze(
            tau_mem=torch.full((OUTPUTS,), 7.5), batch_size=BATCH, norm_input=False, spike_threshold=torch.ones(OUTPUTS)
        ),
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (STEPS, BATCH, CHANNELS))
    flat = torch.tensor(x, dtype=torch.float32).transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        y = net(flat).reshape(BATCH, STEPS, OUTPUTS).transpose(0, 1).numpy().astype(np.uint8)
        graph = to_nir(net, flat[:BATCH])
    graph.infer_types()
    write(folder, "sinabs", graph, x, [y])


def write(folder, name, graph, x, spikes):
    """Both files; spikes ``[T, B, neurons]`` of each layer in order."""
    nir.write(str(folder / f"{name}.nir"), graph)
    np.savez_compressed(folder / f"{name}.npz", x=x.astype(np.uint8), **{f"s{i}": s for i, s in enumerate(spikes)})


if __name__ == "__main__":
    {"rockpool": rockpool, "sinabs": sinabs}[sys.argv[1]](Path(sys.argv[2]))
