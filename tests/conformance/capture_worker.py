"""Runs inside a framework's environment, with stl-deploy in it: captures nets, tells what was proved.

capture_worker.py FRAMEWORK told.json GOLDEN_FOLDER|- [NET ...]
"""

import importlib
import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

import stl_deploy as stl
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.program.file import write_program
from stl_deploy.tracing.initial_norms import drawn_statistics

sys.path.insert(0, str(Path(__file__).parent))


def capture(make):
    torch.manual_seed(0)
    model, x, options = make()
    start = time.process_time()
    with warnings.catch_warnings(), drawn_statistics(model):
        warnings.simplefilter("ignore")
        net = stl.capture(model, x, **options)
    return net, time.process_time() - start


def row(net, seconds):
    proof = net.proof
    return {
        "neurons": sum(int(np.prod(net.program.by_name[layer.layer].shape)) for layer in proof.layers),
        "layers": len(proof.layers),
        "silent": [layer.layer for layer in proof.layers if not layer.rate],
        "replay_compared": proof.replay_compared,
        "replay_differing": proof.replay_differing,
        "layers_compared": sum(layer.compared for layer in proof.layers),
        "layers_differing": sum(layer.differing for layer in proof.layers),
        "farthest_ulp": max((layer.farthest_ulp or 0 for layer in proof.layers), default=0),
        "end_to_end_differing": proof.end_to_end["differing"],
        "cpu_seconds": round(seconds, 1),
    }


def golden(net, stem):
    """The graph, and the module's own spikes on the input it was captured on."""
    from stl_deploy.tracing.proof.module_values import module_spikes, module_values

    traced = net.original.traced
    spikes, _ = module_spikes(traced, module_values(traced, torch.from_numpy(net.sample)), {})
    try:
        write_nir(net.graph, Path(f"{stem}.nir"))
    except stl.UnsupportedError:
        write_program(net.program, Path(f"{stem}.program"))
    np.savez_compressed(
        f"{stem}.npz",
        x=net.sample,
        **{f"spikes__{k}": v.astype(np.uint8 if v.max() > 1 else bool) for k, v in spikes.items()},
    )


def main(framework, told, folder, *names):
    module = importlib.import_module(f"captures.{framework}")
    rows = []
    for name in names or module.CASES:
        found = {"framework": framework, "net": name}
        try:
            net, seconds = capture(module.CASES[name])
            found |= row(net, seconds)
            if folder != "-" and name in module.GOLDEN:
                golden(net, f"{folder}/{framework}-{name}")
        except stl.CaptureError as error:
            found["refused"] = str(error)
        except Exception as error:
            traceback.print_exc()
            found["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
        print(found, file=sys.stderr, flush=True)
        rows.append(found)
    Path(told).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
