"""Files that other frameworks wrote and the spikes they put out, kept by ``python -m tests.conformance --record``."""

from pathlib import Path

import numpy as np
import pytest

from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.readers.restate import restate
from tests.conformance.cases import DIALECTS, ROWS
from tests.conformance.golden import GOLDEN
from tests.conformance.nets import NETS, canonical
from tests.conformance.runs import spikes
from tests.exporters.nir.test_nirfile import same

KEPT = [row for row in ROWS if (GOLDEN / f"{row.name}.npz").is_file()]


def golden(row, folder: Path):
    path = folder / "golden.nir"
    with np.load(GOLDEN / f"{row.name}.npz") as kept:
        path.write_bytes(kept["nir"].tobytes())
        return read_nir(path), kept["x"].astype(np.float32)


def test_every_preset_has_a_recorded_proof():
    assert {row.preset for row in KEPT} == set(DIALECTS) - {"spec"}
    assert {row.framework for row in KEPT if row.direction == "write"} == {
        "snntorch",
        "norse",
        "spikingjelly",
        "sinabs",
    }


@pytest.mark.parametrize("row", [row for row in KEPT if row.direction == "read"], ids=lambda row: row.name)
def test_their_file_spikes_here_as_it_did_there(row, tmp_path):
    graph, x = golden(row, tmp_path)
    for ours, theirs in spikes(lower(graph, PRESETS[row.preset]), x, GOLDEN / f"{row.name}.npz", row):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("row", [row for row in KEPT if row.direction == "write"], ids=lambda row: row.name)
def test_our_file_is_the_one_that_spiked_there_as_here(row, tmp_path):
    graph, x = golden(row, tmp_path)
    program = lower(canonical(NETS[row.net](0, True)), DIALECTS[row.preset])
    write_nir(restate(program, row.framework).graph, tmp_path / "again.nir")
    same(read_nir(tmp_path / "again.nir"), graph)
    for reading in (program, lower(graph)):
        for ours, theirs in spikes(reading, x, GOLDEN / f"{row.name}.npz", row):
            np.testing.assert_array_equal(ours, theirs)


def test_another_dialect_gives_other_spikes(tmp_path):
    (row,) = (row for row in KEPT if row.name == "snntorch-read-snntorch-recurrent")
    graph, x = golden(row, tmp_path)
    pairs = spikes(lower(graph, PRESETS["spec"]), x, GOLDEN / f"{row.name}.npz", row)
    assert any((ours != theirs).any() for ours, theirs in pairs)
