"""Graphs captured from the frameworks' own nets still spike as those did (`tests.conformance.capture --record`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.program.file import read_program
from stl_deploy.graph.run import run

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted([*GOLDEN.glob("*.nir"), *GOLDEN.glob("*.program")])


def test_every_framework_has_some() -> None:
    assert {path.name.split("-")[0] for path in FILES} == {"snntorch", "spikingjelly", "norse", "dcls", "torch_alone"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_graph_spikes_as_the_module_did(path: Path) -> None:
    program = read_program(path) if path.suffix == ".program" else lower(read_nir(path))
    with np.load(path.with_suffix(".npz")) as recorded:
        expected = {name.removeprefix("spikes__"): recorded[name] for name in recorded.files if name != "x"}
        found = run(program, recorded["x"], record=list(expected)).recorded
    assert sum(int(spikes.sum()) for spikes in expected.values()) > 0
    for name, spikes in expected.items():
        np.testing.assert_array_equal(found[name].astype(spikes.dtype), spikes, err_msg=name)
