"""The captured networks' C spikes as its integers; the large runs are for the benchmark."""

from __future__ import annotations

import pytest

from benchmarks import c_agreement
from stl_deploy.exporters.c.compiler import find_compiler, why_none


@pytest.mark.skipif(find_compiler() is None, reason=why_none())
def test_captured_networks() -> None:
    rows = list(c_agreement.captured())
    held = [row for row in rows if row.refused is None]
    assert len(held) >= 7
    assert {row.network.split("-")[0] for row in held} >= {"norse", "snntorch", "spikingjelly"}
    for row in held:
        assert row.differing == {"wide": 0, "vectors": 0, "32-bit": 0}
        assert row.compared > 700
    text = c_agreement.table(rows)
    assert "| snntorch-leaky | 3 | 1,200 | 0 | 0 | 0 |  |" in text
    assert "refused: node" in text


def test_rows_of_other_networks_stay() -> None:
    """The large runs take hours: each is added on its own."""
    recorded = [{"network": "a", "samples": 2, "accuracy": 0.5}, {"network": "c", "samples": 3}]
    rows = [c_agreement.Row("b", 5, accuracy=0.9), c_agreement.Row("c", 4)]
    found = c_agreement.beside(recorded, rows)
    assert [(row.network, row.samples) for row in found] == [("a", 2), ("b", 5), ("c", 4)]
