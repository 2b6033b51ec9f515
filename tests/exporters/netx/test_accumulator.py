"""Sums that nengo-loihi would wrap are told: before integers are chosen, and of those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.exporters.netx.target import CHIPS, Netx, NetxOptions
from stl_deploy.graph.program import Program
from stl_deploy.verbs.checking import check
from tests.exporters.netx.programs import Builder, F


def all_ones(inputs: int) -> Program:
    return Builder((inputs,)).linear("fc", np.ones((2, inputs))).lif("a", 100.0).program()


# 258 weights of 127 come to 32,766, one more to 32,893.
@pytest.mark.parametrize(("inputs", "told"), [(258, False), (259, True)])
def test_two_to_the_fifteenth_is_where_it_begins(inputs: int, told: bool, tmp_path: Path) -> None:
    for ask in (Netx().check, *(chip.check for chip in CHIPS)):
        findings = [finding for finding in ask(all_ones(inputs)) if finding.slug == "wide-sums"]
        assert [(finding.node, finding.severity) for finding in findings] == ([("a", "warning")] if told else [])
        assert all("nengo-loihi wraps the accumulator at 2^21/64 = 32,768, Lava does not" in f.reason for f in findings)


class Listener(Console):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.mark.parametrize(("inputs", "told"), [(200, False), (1000, True)])
def test_the_export_says_it_of_the_integers(inputs: int, told: bool, tmp_path: Path) -> None:
    say = Listener()
    x: Any = (np.random.default_rng(0).random((6, 20, inputs)) < 0.1).astype(F)
    Netx().write(all_ones(inputs), tmp_path / "a.net", NetxOptions(calibration=lambda: x, say=say))
    assert any(text.startswith("'a': some input brings a weighted sum to ") for text in say.heard) is told
    report = check(tmp_path / "a.net")
    found = [(one.slug, one.severity, one.node) for one in report.findings]
    assert found == ([("wide-sums", "warning", "a")] if told else [])
    assert report.targets == {"netx": "approximate" if told else "faithful"}
    assert {row.node: row.targets["netx"] for row in report.nodes}["a"] == report.targets["netx"]
