"""What is counted in the ready-made models on drawn input: their totals and layers, which no change of prices touches.

python -m tests.energy.ready_made_counts          # records ready_made_counts.json anew
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stl_deploy.energy import measure_energy
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.pretrained.unpacking import unpack

FILE = Path(__file__).with_suffix(".json")
MODELS = ("digits", "mnist_small", "fashion_mnist", "n_mnist_small", "cifar10_small")
_OF_EVENTS = ("n_mnist_small",)
_SECTIONS = ("layers", "totals", "edges", "per_sample", "neurobench")
_STEPS, _SAMPLES = 3, 2


def counted(model: str, folder: Path) -> dict[str, Any]:
    """Return the totals of one model's energy report, and a SHA-256 of the sections that hold no price."""
    unpack(model, folder)
    network, _ = load_network(folder)
    has_events = model in _OF_EVENTS
    coding, bits = ("spikes", 0) if has_events else ("analog", 8)
    program = fold(network, coding=coding, fraction_bits=bits).program  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    shape = program.inputs[0].shape
    if has_events:
        x = (rng.random((_STEPS, _SAMPLES, *shape)) < 0.2).astype(np.float32)
    else:
        x = np.repeat(rng.integers(0, 257, (1, _SAMPLES, *shape)) / np.float32(256), _STEPS, axis=0)
    report = measure_energy(program, x, source=model).as_dict()
    held = json.dumps({name: report[name] for name in _SECTIONS}, sort_keys=True)
    return {"totals": report["totals"], "sha256": hashlib.sha256(held.encode()).hexdigest()}


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        found = {model: counted(model, Path(temporary) / model) for model in MODELS}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="ascii")
    print(f"written: {FILE}")
