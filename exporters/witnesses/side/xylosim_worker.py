"""In xylosim's environment: run a Xylo specification on SynSense's simulator.

The job's ``net`` is an npz of the arguments by name; its result holds spikes, v and i of hidden and output neurons.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arrays of one run of integers ``[T, B, channels]``."""
    import numpy as np
    from worker import report

    with np.load(job["input"], allow_pickle=False) as arrays:
        x = arrays["x"]
    with np.load(job["net"], allow_pickle=False) as arrays:
        spec = dict(arrays)
    return run(spec, x, lambda done: report(folder, done, x.shape[1]))


def run(spec: dict[str, Any], x: Any, tell: Any = lambda done: None) -> dict[str, Any]:
    """Spikes, ``v`` ``[T, B, N]``; ``i`` ``[T, B, N, S]``; ``outputs``, ``v_out``, ``i_out`` ``[T, B, outputs]``."""
    import numpy as np
    from xylosim.v2 import XyloLayer

    hidden, synapses = len(spec["weights_rec"]), spec["weights_rec"].shape[2]
    skipped = hidden - len(spec["weights_out"])
    kept: list[Any] = [
        rows(spec["weights_in"]),
        rows(spec["weights_rec"]),
        [[] for _ in range(skipped)] + rows(spec["weights_out"][..., None]),
    ]
    dashes = [spec["dash_syn"], spec.get("dash_syn_2", np.zeros(hidden, int))]
    layer = XyloLayer(
        synapses_in=kept[0],
        synapses_rec=kept[1],
        synapses_out=kept[2],
        aliases=[[int(target)] if target >= 0 else [] for target in spec["aliases"]],
        threshold=spec["threshold"].tolist(),
        threshold_out=spec["threshold_out"].tolist(),
        has_bias=bool(spec["bias_hidden"].any() or spec["bias_out"].any()),
        bias=spec["bias_hidden"].tolist(),
        bias_out=spec["bias_out"].tolist(),
        weight_shift_inp=int(spec["weight_shift_in"]),
        weight_shift_rec=int(spec["weight_shift_rec"]),
        weight_shift_out=int(spec["weight_shift_out"]),
        dash_mem=spec["dash_mem"].tolist(),
        dash_mem_out=spec["dash_mem_out"].tolist(),
        dash_syns=np.stack(dashes, 1).tolist(),
        dash_syns_out=spec["dash_syn_out"][:, None].tolist(),
        name="stl-deploy",
    )
    records: dict[str, list[Any]] = {name: [] for name in ("spikes", "v", "i", "outputs", "v_out", "i_out")}
    for sample in range(x.shape[1]):
        layer.reset_all()
        records["outputs"].append(np.array(layer.evolve(x[:, sample].tolist()), np.uint8))
        records["spikes"].append(np.array(layer.rec_recurrent_spikes, np.uint8))
        records["v"].append(np.array(layer.rec_v_mem, np.int16).T)
        currents = [layer.rec_i_syn, layer.rec_i_syn2][:synapses]
        records["i"].append(np.stack([np.array(current, np.int16).T for current in currents], -1))
        records["v_out"].append(np.array(layer.rec_v_mem_out, np.int16).T)
        records["i_out"].append(np.array(layer.rec_i_syn_out, np.int16).T)
        tell(sample + 1)
    return {name: np.stack(arrays, 1) for name, arrays in records.items()}


def rows(weights: Any) -> list[list[Any]]:
    """For each source its synapses, of weights ``[sources, targets, S]``. The simulator keeps pointers to them."""
    import numpy as np
    from xylosim.v2 import XyloSynapse

    return [
        [XyloSynapse(int(target), int(synapse), int(row[target, synapse])) for target, synapse in np.argwhere(row)]
        for row in weights
    ]


if __name__ == "__main__":
    exporters = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, os.path.join(exporters, "lava", "side"))
    from worker import main

    main(sys.argv[1], run_job)
