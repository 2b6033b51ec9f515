"""Runs inside SANA-FE's own environment, as a program apart (SANA-FE is GPL-3.0): a placed network on Loihi.

python sanafe_placed.py net.npz    ->  JSON on stdout

The first layer's spikes are replayed, as SANA-FE has no analog input; every later layer is simulated, a step later
than the one that feeds it. A layer's biases are switched on while its steps arrive and off afterwards. Weights, biases
and thresholds are scaled alike, because SANA-FE cuts potentials to multiples of 1/64.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import numpy as np
import sanafe

SCALE = 2.0**16


def build(a: dict[str, Any], layers: list[str]) -> Any:
    """The chip with every layer's neurons on their cores."""
    arch = sanafe.load_loihi()
    cores = [core for tile in arch.tiles for core in tile.cores]
    net = sanafe.Network()
    first = net.create_neuron_group("first", a["first/core"].size)
    place(first, a["first/core"], cores)
    used: Counter[int] = Counter()
    for neuron, core in zip(first.neurons, a["first/core"].tolist(), strict=True):
        neuron.set_attributes(soma_hw_name=f"loihi_inputs[{used[core]}]", model_attributes={"spikes": []})
        used[core] += 1
    before = first
    for name in layers:
        group = net.create_neuron_group(
            name,
            a[f"{name}/core"].size,
            model_attributes={
                "leak_decay": float(a[f"{name}/decay"]),
                "reset": 0.0,
                "reset_mode": "hard",
                "reverse_reset_mode": "none",
                "threshold": 1.0,
            },
            default_synapse_hw_name=f"loihi_{a[f'{name}/kind']}_synapse",
            soma_hw_name="loihi_lif",
            log_spikes=True,
        )
        place(group, a[f"{name}/core"], cores)
        for neuron, threshold in zip(group.neurons, (SCALE * a[f"{name}/threshold"]).tolist(), strict=True):
            neuron.set_attributes(model_attributes={"threshold": threshold})
        pairs = [(int(i), int(o)) for i, o in a[f"{name}/pairs"]]
        before.connect_neurons_sparse(group, {"weight": (SCALE * a[f"{name}/weight"]).tolist()}, pairs)
        before = group
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    return chip


def place(group: Any, cores_of: Any, cores: list[Any]) -> None:
    """Each neuron on its core."""
    for neuron, core in zip(group.neurons, cores_of.tolist(), strict=True):
        neuron.map_to_core(cores[core])


def simulate(chip: Any, a: dict[str, Any], layers: list[str], sample: int) -> dict[str, Any]:
    """One sample from rest: energies and counts summed over its steps and those that empty the pipeline."""
    chip.reset()
    groups = chip.mapped_neuron_groups
    spikes = a["first/spikes"][:, sample].astype(int)  # [T, neurons]
    steps = len(spikes)
    for neuron, row in zip(groups["first"], spikes.T.tolist(), strict=True):
        neuron.set_attributes(model_attributes={"spikes": row})
    for name in layers:
        set_bias(groups[name], np.zeros_like(a[f"{name}/bias"]))
    total: Counter[str] = Counter()
    fired = dict.fromkeys(layers, 0)
    for step in range(steps + len(layers)):
        for depth, name in enumerate(layers, 1):
            if step == depth:
                set_bias(groups[name], a[f"{name}/bias"])
            if step == depth + steps:
                set_bias(groups[name], np.zeros_like(a[f"{name}/bias"]))
        found = chip.sim(1, timing_model="simple", spike_trace=True)
        total.update({f"energy/{key}": value for key, value in found["energy"].items()})
        total.update({key: found[key] for key in ("spikes", "packets_sent", "sim_time")})
        for address in found["spike_trace"][0]:
            if address.group_name in fired:
                fired[address.group_name] += 1
    return {"total": dict(total), "fired": fired}


def set_bias(group: Any, bias: Any) -> None:
    """The constant current of each neuron."""
    for neuron, value in zip(group, (SCALE * bias).tolist(), strict=True):
        neuron.set_attributes(model_attributes={"bias": value})


if __name__ == "__main__":
    with np.load(sys.argv[1]) as archive:
        arrays = {key: archive[key] for key in archive.files}
    names = [str(name) for name in arrays["layers"]]
    made = build(arrays, names)
    print(json.dumps([simulate(made, arrays, names, b) for b in range(arrays["first/spikes"].shape[1])]))
