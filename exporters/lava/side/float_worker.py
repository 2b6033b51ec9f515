"""Runs dense layers in floating point on raw Lava processes. Executed by Lava's Python; imports nothing of stl-deploy.

    python -I float_worker.py JOB.json

JOB: ``net`` (npz with ``weight<i>`` [out, in], ``bias<i>``, ``threshold<i>`` [out], ``decay<i>``), ``input`` (npz with
``x`` [T, B, in]), ``folder``, ``parent``. Written into ``folder``: as `worker` does, ``layer<i>`` [T, B, out].
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Any


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return spikes of every layer for every sample, each from rest."""
    import numpy as np
    from file_sink import FileSink
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.dense.process import Dense
    from lava.proc.io.source import RingBuffer
    from lava.proc.lif.process import LIFReset
    from worker import FLUSHES, watch_models, write_json

    warnings.simplefilter("ignore")
    with np.load(job["input"], allow_pickle=False) as arrays:
        x = arrays["x"].astype(float)
    with np.load(job["net"], allow_pickle=False) as arrays:
        layers = {key: arrays[key].astype(float) for key in arrays.files}
    steps, samples, inputs = x.shape
    count = sum(key.startswith("weight") for key in layers)
    total = steps * samples + count
    data = np.zeros((inputs, total))
    data[:, : steps * samples] = np.moveaxis(x, 1, 0).reshape(-1, inputs).T
    source = RingBuffer(data=data)
    arriving, sinks = source.s_out, []
    for index in range(count):
        weight, threshold = layers[f"weight{index}"], layers[f"threshold{index}"]
        synapse = Dense(weights=weight, num_message_bits=24)
        neuron = LIFReset(
            shape=threshold.shape,
            du=1.0,
            dv=1.0 - float(layers[f"decay{index}"]),
            vth=threshold,
            bias_mant=layers[f"bias{index}"],
            reset_interval=steps,
            reset_offset=index + 2,
        )
        sink = FileSink(shape=threshold.shape, path=os.path.join(folder, f"spikes{index}.bin"))
        open(sink.path, "wb").close()
        arriving.connect(synapse.s_in)
        synapse.a_out.connect(neuron.a_in)
        neuron.s_out.connect(sink.a_in)
        arriving = neuron.s_out
        sinks.append(sink)
    over = threading.Event()
    watch = threading.Thread(target=watch_models, args=(source, folder, over), daemon=True)
    watch.start()
    config = Loihi2SimCfg(select_tag="floating_pt")
    try:
        done = 0
        while done < total:
            now = min(max(1, total // FLUSHES), total - done)
            source.run(condition=RunSteps(num_steps=now), run_cfg=config)
            done += now
            progress = {"done": int(steps * samples * done / total), "total": steps * samples}
            write_json(os.path.join(folder, "progress.json"), progress)
        # See `worker`: it must not wait for the processes that stop waits for.
        over.set()
        watch.join()
    finally:
        source.stop()
    return {f"layer{index}": collect(sink, index + 1, steps, samples) for index, sink in enumerate(sinks)}


def collect(sink: Any, latency: int, steps: int, samples: int) -> Any:
    """Return one layer's spikes [T, B, out] in the input's time frame."""
    import numpy as np

    recorded = np.fromfile(sink.path, np.uint8).reshape(-1, *sink.shape)
    own = recorded[latency : latency + samples * steps].reshape(samples, steps, -1)
    return np.ascontiguousarray(np.moveaxis(own, 1, 0))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import worker

    worker.main(sys.argv[1], run_job)
