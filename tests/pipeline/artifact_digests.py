"""What the ready-made digits network becomes, as one SHA-256 for each artifact.

A move or a merge in the code changes none of them; whoever changes what is written on purpose records them anew:

    python -m tests.pipeline.artifact_digests

Versions are left out, and so are the libraries' own ways of laying bytes out in a file. Thresholds are exponentials,
whose last bit is the processor's affair, so that net.nir and net.onnx have a digest for each kind of machine that was
met; what is recorded anew replaces all of them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.energy import measure_energy
from stl_deploy.exporters.targets import find_format
from stl_deploy.pipeline.artifacts import write
from stl_deploy.pipeline.fold import fold_run
from stl_deploy.pipeline.inputs import encode_split
from stl_deploy.training.pretrained.unpacking import unpack

RECORDED = Path(__file__).with_name("artifact_digests.json")
_SAMPLES = 100


_TOTALS = (
    "synops_AC",
    "synops_MAC",
    "dense_macs_exact",
    "dense_macs_nominal",
    "ann_macs_exact",
    "bias_adds",
    "neuron_updates",
    "neuron_updates_touched",
    "spikes",
)


def digests(folder: Path) -> dict[str, Any]:
    """Of net.nir, net.onnx, net.net and the counts on the first test images, written into ``folder``."""
    unpack("digits", folder)
    folded = fold_run(folder, folder / "net.nir")
    test = encode_split(folded.config, folded.data.test, _SAMPLES)
    calibration = encode_split(folded.config, folded.data.train, _SAMPLES).x
    write(folded.program, find_format("onnx"), folder / "net.onnx")
    write(folded.program, find_format("netx"), folder / "net.net", calibration=lambda: calibration)
    totals = measure_energy(folded.program, test.x).as_dict()["totals"]
    return {
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "net.nir": of_hdf5(folder / "net.nir"),
        "net.onnx": of_onnx(folder / "net.onnx"),
        "net.net": of_hdf5(folder / "net.net"),
        "counts": {name: totals[name] for name in _TOTALS},
    }


def of_hdf5(path: Path) -> str:
    """Every dataset and attribute but versions, in order of name."""
    found: dict[str, Any] = {}

    def take(name: str, node: Any) -> None:
        found.update({f"{name}@{key}": str(value) for key, value in node.attrs.items()})
        if isinstance(node, h5py.Dataset) and not name.endswith("version"):
            value = np.asarray(node[()])
            text = [v.decode() if isinstance(v, bytes) else v for v in value.reshape(-1).tolist()]
            found[name] = [value.dtype.kind, value.shape, text]

    with h5py.File(path) as file:
        file.visititems(take)
    return _of(found)


def of_onnx(path: Path) -> str:
    """The graph alone."""
    return hashlib.sha256(onnx.load(path).graph.SerializeToString(deterministic=True)).hexdigest()


def _of(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    with temporary_folder() as place:
        found = digests(place)
        kept = {key: value if key == "counts" else [value] for key, value in found.items()}
        RECORDED.write_text(json.dumps(kept, indent=2) + "\n", encoding="ascii")
