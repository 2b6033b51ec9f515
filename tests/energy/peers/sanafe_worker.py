"""Runs inside SANA-FE's own environment, as a program apart (SANA-FE is GPL-3.0): its energy of a dense net on Loihi.

python sanafe_worker.py net.npz    ->  JSON on stdout
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import sanafe


def simulate(a: dict[str, Any]) -> dict[str, Any]:
    """Inputs, hidden and output neurons on a core each; one step of delay from layer to layer."""
    net = sanafe.Network()
    x = a["x"][:, 0]  # [T, inputs], one sample
    inputs = net.create_neuron_group("inputs", x.shape[1])
    for number, neuron in enumerate(inputs.neurons):
        spikes = [int(value) for value in x[:, number]]
        neuron.set_attributes(soma_hw_name=f"loihi_inputs[{number}]", model_attributes={"spikes": spikes})
    groups = [inputs]
    for name in ("w1", "w2"):
        weight = a[name]
        group = net.create_neuron_group(
            name,
            weight.shape[0],
            model_attributes={
                "threshold": float(a["threshold"]),
                "leak_decay": 1.0,
                "reset": 0.0,
                "reset_mode": "hard",
                "reverse_reset_mode": "none",
            },
            default_synapse_hw_name="loihi_dense_synapse",
            soma_hw_name="loihi_lif",
        )
        groups[-1].connect_neurons_dense(group, {"weight": [float(v) for v in weight.T.ravel()]})
        groups.append(group)
    arch = sanafe.load_loihi()
    for number, group in enumerate(groups):
        core = arch.tiles[0].cores[number]
        for neuron in group.neurons:
            neuron.map_to_core(core)
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    results = chip.sim(len(x), timing_model="simple")
    return {key: value for key, value in results.items() if isinstance(value, int | float | dict)}


if __name__ == "__main__":
    with np.load(sys.argv[1]) as archive:
        arrays = {key: archive[key] for key in archive.files}
    print(json.dumps(simulate(arrays)))
