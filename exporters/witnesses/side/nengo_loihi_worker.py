"""In nengo-loihi's environment (Python 3.8): run layers of integers on its Loihi emulator.

Each layer is a block of compartments with synapses from the layer before; it is built with integers, past nengo's
builder and discretiser. The layers run one after the other, each given what the one before fired, so that no layer
sees a step before its data arrive. An input of x is x spikes in one step.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

TOP = 2**23 - 1
"""Of a potential."""


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return spikes ``[T, B, n]`` of every layer, for integers ``[T, B, n]`` that are not negative."""
    import numpy as np

    with np.load(job["input"], allow_pickle=False) as arrays:
        x = arrays["x"]
    x = x.reshape(*x.shape[:2], -1).astype(np.int64)
    spikes = {}
    with np.load(job["net"], allow_pickle=False) as net:
        keys = [str(key) for key in net["keys"]]
        for place, key in enumerate(keys):
            x = spikes[key] = run_layer({name: net[f"{key}.{name}"] for name in NAMES}, x)
            with open(os.path.join(folder, "progress.json.part"), "w") as stream:
                json.dump({"done": place + 1, "total": len(keys)}, stream)
            os.replace(os.path.join(folder, "progress.json.part"), os.path.join(folder, "progress.json"))
    return spikes


NAMES = ("starts", "targets", "weights", "threshold", "bias", "v_decay", "i_decay")


def run_layer(layer: dict[str, Any], x: Any) -> Any:
    """Return one layer's spikes, every sample from rest."""
    import numpy as np
    from nengo_loihi.block import Axon, LoihiBlock, Synapse
    from nengo_loihi.emulator import EmulatorInterface
    from nengo_loihi.inputs import SpikeInput

    neurons, ins = len(layer["threshold"]), len(layer["starts"]) - 1
    block = LoihiBlock(neurons)
    compartment = block.compartment
    compartment.vth = (64 * layer["threshold"]).astype(np.int32)
    compartment.bias = (64 * layer["bias"]).astype(np.int32)
    compartment.decay_v = layer["v_decay"].astype(np.int32)
    compartment.decay_u = (layer["i_decay"] - 1).astype(np.int32)
    compartment.refract_delay[:] = 1
    compartment.scale_u = compartment.scale_v = False
    compartment.vmin, compartment.vmax = -TOP, TOP
    synapse = Synapse(ins)
    parts = [slice(*layer["starts"][i : i + 2]) for i in range(ins)]
    synapse.weights = [np.int32(64) * layer["weights"][part].astype(np.int32)[None] for part in parts]
    synapse.indices = [layer["targets"][part].astype(np.int32)[None] for part in parts]
    block.add_synapse(synapse)
    entry, axon = SpikeInput(ins), Axon(ins)
    axon.target = synapse
    axon.set_compartment_axon_map(np.arange(ins))
    entry.add_axon(axon)
    emulator = EmulatorInterface(SimpleNamespace(blocks=[block], inputs=[entry], probes=[], dt=0.001), seed=0)
    emulator.t = 1
    state = emulator.compartment
    spikes = np.zeros((*x.shape[:2], neurons), np.uint8)
    for sample in range(x.shape[1]):
        for values in (state.current, state.voltage, state.input, state.ref_count, state.spiked):
            values[:] = 0
        for step in range(len(x)):
            entry.add_spikes(emulator.t, np.repeat(np.arange(ins), x[step, sample]))
            emulator.step()
            spikes[step, sample] = state.spiked
    return spikes


if __name__ == "__main__":
    exporters = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, os.path.join(exporters, "lava", "side"))
    from worker import main

    main(sys.argv[1], run_job)
