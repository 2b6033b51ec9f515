"""What the ready-made digits network and small networks of every kind become, as one SHA-256 for each artifact.

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

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.energy import measure_energy
from stl_deploy.exporters.targets import find_format
from stl_deploy.pipeline.artifacts import write
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.training.pretrained.unpacking import unpack
from tests.pipeline import small_networks
from tests.pipeline.digest import of_hdf5, of_onnx

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
        **small_networks.digests(folder),
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "net.nir": of_hdf5(folder / "net.nir"),
        "net.onnx": of_onnx(folder / "net.onnx"),
        "net.net": of_hdf5(folder / "net.net"),
        "counts": {name: totals[name] for name in _TOTALS},
    }


if __name__ == "__main__":
    with temporary_folder() as place:
        found = digests(place)
        kept = {key: value if key == "counts" else [value] for key, value in found.items()}
        RECORDED.write_text(json.dumps(kept, indent=2) + "\n", encoding="ascii")
