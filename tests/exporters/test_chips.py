"""Named refusals of chips that nothing is written for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stl_deploy.exporters.targets import registry
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Input, Neuron, Output, Program, Source


def asked(name: str, *neurons: dict[str, Any]) -> list[Finding]:
    nodes: list[Any] = [Input(name="in", shape=(3,), sources=())]
    for i, fields in enumerate(neurons):
        fields = {"decay": np.float32(0.5), "threshold": np.float32(1)} | fields
        nodes.append(Neuron(name=f"lif{i}", shape=(3,), sources=(Source(nodes[-1].name),), **fields))
    nodes.append(Output(name="out", shape=(3,), sources=(Source(nodes[-1].name),)))
    return list(registry().checks[name].check(Program(tuple(nodes), 1e-4)))


IF, NOTHING, MANY = np.float32(1), None, np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize(
    ("chip", "fields", "slugs"),
    [
        ("speck", {}, ["no-leak"]),
        ("speck", {"decay": IF}, []),
        ("speck", {"decay": IF, "threshold": MANY}, ["one-threshold-a-core"]),
        ("akida", {}, ["no-memory"]),
        ("akida", {"decay": NOTHING, "threshold": MANY}, []),
        ("spinnaker2", {}, ["tool-not-available"]),
        ("hls4ml", {}, ["not-released"]),
    ],
)
def test_refusals(chip: str, fields: dict[str, Any], slugs: list[str]) -> None:
    found = asked(chip, fields)
    assert [finding.slug for finding in found] == slugs
    for finding in found:
        assert finding.severity == "error"
        assert "; evidence " in finding.reason
        assert finding.remedy
        assert finding.node == (None if chip in ("spinnaker2", "hls4ml") else "lif0")


def test_every_population_is_named() -> None:
    assert [finding.node for finding in asked("speck", {}, {})] == ["lif0", "lif1"]
