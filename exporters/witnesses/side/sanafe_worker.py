"""In SANA-FE's environment (Python 3.11): run layers of integers on its model of Loihi 1, with its energy terms.

The layers run one after the other, each on a chip of its own, given what the one before fired. Spikes are binary there,
so an input of x is one entering neuron for each of its bits, whose weights count 1, 2, 4, ... times. A step's spikes
arrive in the next one: biases wait for them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NEURONS = 1024
"""Of a core."""
NAMES = ("starts", "targets", "weights", "threshold", "bias", "v_decay")
TERMS = ("synapse", "dendrite", "soma", "network")


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return spikes ``[T, B, n]`` of every layer for nonnegative integers ``[T, B, n]``, and ``energy``, J."""
    import numpy as np

    with np.load(job["input"], allow_pickle=False) as arrays:
        x = arrays["x"]
    x = x.reshape(*x.shape[:2], -1).astype(np.int64)
    spikes: dict[str, Any] = {}
    energy = np.zeros(len(TERMS))
    with np.load(job["net"], allow_pickle=False) as net:
        keys = [str(key) for key in net["keys"]]
        for place, key in enumerate(keys):
            layer = {name: net[f"{key}.{name}"] for name in NAMES}

            def report(done: int, place: int = place, samples: int = x.shape[1]) -> None:
                with open(os.path.join(folder, "progress.json.part"), "w") as stream:
                    json.dump({"done": place * samples + done, "total": len(keys) * samples}, stream)
                os.replace(os.path.join(folder, "progress.json.part"), os.path.join(folder, "progress.json"))

            x, joules = run_layer(layer, x, report)
            spikes[key], energy = x, energy + joules
    return {**spikes, "energy": energy}


def run_layer(layer: dict[str, Any], x: Any, report: Any) -> tuple[Any, Any]:
    """Return one layer's spikes, every sample from rest, and its joules by term."""
    import numpy as np
    import sanafe

    steps, samples, ins = x.shape
    bits = [int(most).bit_length() for most in x.max(axis=(0, 1), initial=0)]
    source = np.repeat(np.arange(ins), bits)
    bit = np.concatenate([np.arange(count) for count in bits]) if len(source) else source
    entering = max(len(source), 1)
    neurons = len(layer["threshold"])
    arch = sanafe.load_loihi()
    cores = arch.cores()
    wanted = -(-entering // NEURONS) + -(-neurons // NEURONS)
    if wanted > len(cores):
        raise ValueError(
            f"a layer and what enters it take {wanted} cores of {NEURONS} neurons; Loihi 1 has {len(cores)}"
        )
    net = sanafe.Network()
    entry = net.create_neuron_group("in", entering, soma_hw_name="loihi_inputs[0]")
    group = net.create_neuron_group(
        "out",
        neurons,
        model_attributes={"reset": 0.0, "force_update": False},
        default_synapse_hw_name="loihi_sparse_synapse",
        default_dendrite_hw_name="loihi_dendrites",
        soma_hw_name="loihi_lif",
        log_spikes=True,
    )
    for place, neuron in enumerate(entry):
        neuron.set_attributes(soma_hw_name=f"loihi_inputs[{place % NEURONS}]")
        neuron.map_to_core(cores[place // NEURONS])
    after = -(-entering // NEURONS)
    for place, neuron in enumerate(group):
        leak = (4096 - int(layer["v_decay"][place])) / 4096
        neuron.set_attributes(
            model_attributes={"threshold": float(layer["threshold"][place]), "leak_decay": leak, "bias": 0.0}
        )
        neuron.map_to_core(cores[after + place // NEURONS])
    parts = [slice(*layer["starts"][i : i + 2]) for i in source]
    pairs = [(i, int(target)) for i, part in enumerate(parts) for target in layer["targets"][part]]
    weights = [
        float(weight << b)
        for part, b in zip(parts, bit.tolist(), strict=True)
        for weight in layer["weights"][part].tolist()
    ]
    if pairs:
        entry.connect_neurons_sparse(group, {"weight": weights}, pairs)
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    inputs, outputs = chip.mapped_neuron_groups["in"], chip.mapped_neuron_groups["out"]
    biased = np.flatnonzero(layer["bias"]).tolist()
    spikes, energy = np.zeros((steps, samples, neurons), np.uint8), np.zeros(len(TERMS))
    for sample in range(samples):
        chip.reset()
        for place, (i, b) in enumerate(zip(source, bit, strict=True)):
            train = [bool(value) for value in x[:, sample, i] >> b & 1]
            inputs[place].set_attributes(model_attributes={"spikes": [*train, False]})
        for waits, count in ((True, 1), (False, steps)):
            for place in biased:
                outputs[place].set_attributes(model_attributes={"bias": 0.0 if waits else float(layer["bias"][place])})
            result = chip.sim(count, timing_model="simple", spike_trace=True)
            energy += [result["energy"][term] for term in TERMS]
            if waits:
                continue
            for step, fired in enumerate(result["spike_trace"]):
                for neuron in fired:
                    spikes[step, sample, neuron.neuron_offset] = 1
        report(sample + 1)
    return spikes, energy


if __name__ == "__main__":
    exporters = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, os.path.join(exporters, "lava", "side"))
    from worker import main

    main(sys.argv[1], run_job)
