"""Run a netx file on Lava, in the side environment's Python 3.10; imports nothing of stl-deploy.

    python -I worker.py JOB.json

JOB: ``net`` (a .net file), ``input`` (npz with ``x`` [T, B, *shape], torch order), ``folder`` (output folder),
``parent`` (the driver's process id). Written into ``folder``: ``progress.json`` {done, total} after each step,
``spikes.npz`` with one uint8 array ``layer<i>`` [T, B, *shape] per layer, then ``done.json``; or ``failure.json``
with the reason (exit code ENOSPC: the disk is full). Standard output stays unused, because netx prints to it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

FLUSHES = 20
"""Times that a run pauses to report its progress."""


SHARED_MEMORY = "stl-{}-"
"""Prefix of a worker's shared memory, with its process number: the driver removes what is left of it."""


def end_with_parent() -> None:
    """Let Linux's kernel kill this process, and all its later forks, when its parent ends.

    Even a stopped one. Elsewhere `watch_parent` alone does that.
    """
    import ctypes

    death_signal = 1
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(death_signal, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    os.register_at_fork(after_in_child=lambda: libc.prctl(death_signal, signal.SIGKILL))


def name_shared_memory() -> None:
    """Let names of shared memory begin as `SHARED_MEMORY` says."""
    from multiprocessing import shared_memory

    prefix = "/" + SHARED_MEMORY.format(os.getpid())
    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 10  # type: ignore[attr-defined]


def watch_parent(parent: int) -> None:
    """End this whole process group when the driver is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgid(0), signal.SIGTERM)


def write_json(path: str, data: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    with open(path + ".part", "w") as stream:
        json.dump(data, stream)
    os.replace(path + ".part", path)


def report(folder: str, done: int, total: int) -> None:
    """Tell the driver how many of the job's steps, or samples, are done."""
    write_json(os.path.join(folder, "progress.json"), {"done": done, "total": total})


def main(job_path: str, run: Callable[[dict[str, Any], str], dict[str, Any]]) -> None:
    """Do one job with ``run``; see the module."""
    with open(job_path) as stream:
        job = json.load(stream)
    end_with_parent()
    name_shared_memory()
    threading.Thread(target=watch_parent, args=(job["parent"],), daemon=True).start()
    folder = job["folder"]
    try:
        import numpy as np

        spikes = run(job, folder)
        np.savez_compressed(os.path.join(folder, "spikes.npz"), **spikes)
    except Exception as error:
        traceback.print_exc()
        give_up(folder, error)
    write_json(os.path.join(folder, "done.json"), {"layers": sorted(spikes)})


def give_up(folder: str, error: BaseException, where: str = "") -> None:
    """End at once, with the reason in failure.json; a full disk has no room for it, so the exit code says it."""
    try:
        write_json(os.path.join(folder, "failure.json"), {"reason": f"{where}{type(error).__name__}: {error}"})
    except OSError as full:
        error = full
    os._exit(errno.ENOSPC if getattr(error, "errno", None) == errno.ENOSPC else 1)


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return spikes of every layer for every sample, each from rest."""
    import numpy as np

    with np.load(job["input"], allow_pickle=False) as arrays:
        x = arrays["x"].astype(np.int32)
    steps, samples = x.shape[:2]
    alone = has_delays(job["net"])
    parts = [slice(i, i + 1) for i in range(samples)] if alone else [slice(0, samples)]
    results = []
    for index, part in enumerate(parts):

        def tell(done: float, index: int = index) -> None:
            total = steps * samples
            report(folder, int(total * (index + done) / len(parts)), total)

        results.append(run_concatenated(job["net"], x[:, part], folder, alone, tell))
    return {key: np.concatenate([result[key] for result in results], axis=1) for key in results[0]}


def has_delays(net_path: str) -> bool:
    """Return whether spikes in a delay line outlive a reset, so that samples must run one at a time."""
    import h5py

    with h5py.File(net_path, "r") as file:
        return any("delay" in layer for layer in file["layer"].values())


def run_concatenated(net_path: str, x: Any, folder: str, alone: bool, tell: Callable[[float], None]) -> dict[str, Any]:
    """Run all samples one after the other in time; set every layer's u and v to 0 when a sample reaches it.

    alone: there is one sample, and biases wait until it reaches their layer.
    """
    import numpy as np
    from file_sink import FileSink
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer

    warnings.simplefilter("ignore")
    graded = int(x.min()) < 0 or int(x.max()) > 1
    steps, samples = x.shape[:2]
    net = hdf5.Network(
        net_config=net_path,
        num_layers=layers_to_run(net_path),
        reset_interval=steps,
        reset_offset=1,
        input_message_bits=16 if graded else 0,
    )
    sequence = np.moveaxis(x, 1, 0).reshape(samples * steps, *x.shape[2:])
    if len(net.inp.shape) == 3:
        sequence = sequence.transpose(0, 3, 2, 1)
    total = samples * steps + len(net.layers)
    data = np.zeros((*net.inp.shape, total), np.int32)
    data[..., : samples * steps] = np.moveaxis(sequence.reshape(-1, *net.inp.shape), 0, -1)
    source = RingBuffer(data=data)
    source.s_out.connect(net.inp)
    sinks = []
    for index, layer in enumerate(net.layers):
        path = os.path.join(folder, f"spikes{index}.bin")
        open(path, "wb").close()
        sink = FileSink(shape=layer.out.shape, path=path)
        layer.out.connect(sink.a_in)
        sinks.append(sink)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    held = hold_biases(net) if alone else {}
    over = threading.Event()
    watch = threading.Thread(target=watch_models, args=(net, folder, over), daemon=True)
    watch.start()
    try:
        done = 0
        while done < total:
            now = 1 if done < len(held) else min(max(1, total // FLUSHES), total - done)
            net.run(condition=RunSteps(num_steps=now), run_cfg=config)
            done += now
            if done in held:
                variable, bias = held[done]
                variable.set(bias)
            tell(done / total)
        # It waits for the same processes as stop does, and what one of two has waited for the other cannot close.
        over.set()
        watch.join()
    finally:
        net.stop()
    places = spiking_places(net_path)
    return {
        f"layer{place}": collect(sink.path, sink.shape, latency, steps, samples)
        for latency, (place, sink) in enumerate(zip(places, sinks, strict=True), start=1)
    }


def watch_models(net: Any, folder: str, over: threading.Event) -> None:
    """End the worker if a model's process has raised or was killed: Lava itself would wait for it forever."""
    while not over.wait(0.2):
        infrastructure = getattr(getattr(net, "runtime", None), "_messaging_infrastructure", None)
        actors = list(getattr(infrastructure, "actors", ()))
        for actor in actors:
            if actor.exception:
                give_up(folder, actor.exception[0], "in a model, ")
        manager = getattr(getattr(infrastructure, "smm", None), "_process", None)
        codes = [getattr(process, "exitcode", None) for process in (*actors, *([manager] if manager else []))]
        killed = [-code for code in codes if code is not None and code < 0]
        if killed and not over.is_set():
            give_up(folder, RuntimeError(f"one of its processes was killed by signal {killed[0]}"))


def hold_biases(net: Any) -> dict[int, Any]:
    """Set every bias to 0; by the step after which it is due: (Lava variable, bias).

    A bias acts before the sample reaches its layer, and what it makes the neurons fire would be under way
    in the next layer's delay line when that layer starts from rest.
    """
    import numpy as np

    held = {}
    for latency, layer in enumerate(net.layers, start=1):
        variable = layer.neuron.bias_mant
        held[latency] = (variable, np.array(variable.init, np.int32) * np.ones(variable.shape, np.int32))
        variable.init = 0
    return held


def layers_to_run(net_path: str) -> int:
    """Return all layers but the final averages, which netx cannot run."""
    import h5py
    import numpy as np

    with h5py.File(net_path, "r") as file:
        kinds = [np.asarray(file["layer"][str(i)]["type"]).reshape(-1)[0] for i in range(len(file["layer"]))]
    while len(kinds) > 1 and kinds[-1] == b"average":
        kinds.pop()
    return len(kinds)


def spiking_places(net_path: str) -> list[int]:
    """Return indices of the file's entries that are layers with neurons."""
    import h5py

    with h5py.File(net_path, "r") as file:
        layers = file["layer"]
        return [i for i in range(len(layers)) if "weight" in layers[str(i)]]


def collect(path: str, shape: Any, latency: int, steps: int, samples: int) -> Any:
    """Return one layer's spikes [T, B, *shape] in torch order and in the input's time frame."""
    import numpy as np

    recorded = np.fromfile(path, np.uint8).reshape(-1, *shape)
    own = recorded[latency : latency + samples * steps]
    if len(shape) == 3:
        own = own.transpose(0, 3, 2, 1)
    return np.ascontiguousarray(np.moveaxis(own.reshape(samples, steps, *own.shape[1:]), 1, 0))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(sys.argv[1], run_job)
