"""A file that another framework wrote: simulated, exported to ONNX and costed, with nothing but its dialect named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stl_deploy import verbs
from tests.conformance.golden import GOLDEN

WRITTEN = {
    "snntorch": "snntorch-read-snntorch-recurrent",
    "norse": "norse-read-norse-conv",
    "spikingjelly": "spikingjelly-read-spikingjelly-conv-avg",
    "sinabs": "sinabs-read-sinabs-conv-sum",
    "rockpool": "rockpool-read-rockpool-mlp-cuba",
    "spyx": "spyx-read-spyx-conv",
}


@pytest.mark.parametrize("dialect", WRITTEN)
def test_a_foreign_file_goes_the_whole_way(dialect: str, tmp_path: Path) -> None:
    source, given = tmp_path / "net.nir", tmp_path / "x.npz"
    with np.load(GOLDEN / f"{WRITTEN[dialect]}.npz") as kept:
        source.write_bytes(kept["nir"].tobytes())
        np.savez(given, x=kept["x"].astype(np.float32))
        theirs = kept[max(name for name in kept.files if name.startswith("s"))]
    verbs.simulate(source, given, "reference", tmp_path / "y.npz", dialect=dialect)
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"], theirs)
    manifest = verbs.export(source, "onnx", tmp_path / "net.onnx", dialect=dialect, input_file=given)
    assert manifest["target"] == "onnx"
    (onnx,) = manifest["verified"]["runs"]
    assert onnx["agreement"] == 1
    assert onnx["compared"] > 0
    report = verbs.energy(source, given, dialect=dialect).as_dict()
    assert report["totals"]["synops"] > 0
