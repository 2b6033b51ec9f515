"""Runs inside a framework's own environment; needs numpy, nir and that framework only.

    worker.py FRAMEWORK jobs.json done.json

A job is {"verb", "net", "file", "spikes", "options"}. ``export``: build ``net`` (layers and input), run it, write
its NIR ``file`` as the framework does. ``load``: read the NIR ``file`` as the framework does, run it on the input of
``net``. Both write one array ``[T, B, ...]`` for each layer of neurons to ``spikes``. What could not be done is told in
done.json.
"""

import contextlib
import importlib
import json
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))


class Unsupported(Exception):
    """The framework has no such layer, or does not write or read it."""


def work(module, job):
    arrays = dict(np.load(job["net"]))
    if job["verb"] == "load":
        return module.load(job["file"], arrays["x"], **job["options"])
    layers = json.loads(str(arrays.pop("layers")))
    for layer in layers:
        layer.update({k: arrays[v] for k, v in layer.items() if isinstance(v, str) and v in arrays})
    return module.export(layers, arrays["x"], job["file"], **job["options"])


def main(framework, jobs, done):
    warnings.simplefilter("ignore")
    module = importlib.import_module(f"frameworks.{framework}")
    told = []
    for job in json.loads(Path(jobs).read_text()):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                spikes = work(module, job)
            np.savez_compressed(job["spikes"], **{f"s{i}": np.asarray(s) for i, s in enumerate(spikes)})
            told.append({"status": "done"})
        except Unsupported as error:
            told.append({"status": "unsupported", "reason": str(error)})
        except Exception as error:
            traceback.print_exc()
            told.append({"status": "failed", "reason": f"{type(error).__name__}: {str(error)[:200]}"})
    Path(done).write_text(json.dumps(told))


if __name__ == "__main__":
    sys.modules["worker"] = sys.modules["__main__"]
    main(*sys.argv[1:])
