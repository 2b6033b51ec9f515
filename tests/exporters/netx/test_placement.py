"""Cores by hand, limits with their sources, and every refusal of a graph at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stl_deploy as stl
from stl_deploy.exporters.netx.chain import refusals
from stl_deploy.exporters.netx.placement import EVIDENCE, Chip, Limit, load_chips, place
from stl_deploy.exporters.netx.target import Netx, check_chip
from stl_deploy.graph.program import Program
from tests.drawn import examples
from tests.exporters.netx.programs import Builder, conv_net


def chip(**limits: int) -> Chip:
    return Chip("tiny", "Tiny", {name: Limit(value, "a test", "A") for name, value in limits.items()})


def mlp(theta: Any = 1.0) -> Program:
    first = Builder((20,)).linear("fc1", np.ones((10, 20))).lif("a", theta)
    return first.linear("fc2", np.ones((4, 10))).lif("b", 1.0).program()


def test_by_hand() -> None:
    """Memory for 80 synapses: 4 neurons of 20, so 10 neurons take 3 cores; then 8 of 10, so 4 take one."""
    placed = place(mlp(), chip(synapse_bytes_per_core=80, neurons_per_core=100, cores=4))
    assert [
        (c.node, c.neurons, c.used["in_axons"], c.used["out_axons"], c.used["synapse_bytes"])
        for c in placed.placement.cores
    ] == [
        ("a", 4, 20, 4, 80),
        ("a", 4, 20, 4, 80),
        ("a", 2, 20, 2, 40),
        ("b", 4, 10, 4, 40),
    ]
    assert placed.excess == ()
    even = place(mlp(), chip(synapse_bytes_per_core=80, neurons_per_core=100, cores=4), "balanced")
    assert [core.neurons for core in even.placement.cores] == [3, 3, 4, 4]


@pytest.mark.parametrize(
    ("limits", "node", "said"),
    [
        (
            {"in_axons_per_core": 15},
            "a",
            "input axons of one neuron: 20 needed, the limit is 15 (a test; the maker's document)",
        ),
        ({"synapse_bytes_per_core": 12}, "a", "synapse memory of one neuron, bytes: 20 needed, the limit is 12"),
        ({"neurons_per_core": 2, "cores": 6}, None, "cores: 7 needed, the limit is 6"),
        ({"out_axons_per_core": 9}, "a", "output axons of one core: 10 needed, the limit is 9"),
        ({"synapses_per_chip": 239}, None, "synapses: 240 needed, the limit is 239"),
        ({"neurons_per_chip": 13}, None, "neurons: 14 needed, the limit is 13"),
    ],
)
def test_what_does_not_fit_and_by_how_much(limits: dict[str, int], node: str | None, said: str) -> None:
    found = [(where, str(excess)) for where, excess in place(mlp(), chip(**limits)).excess]
    assert (node, True) in [(where, text.startswith(said)) for where, text in found]
    errors = [finding for finding in check_chip(mlp(), chip(**limits)) if finding.severity == "error"]
    assert errors
    assert all(finding.slug == "does-not-fit" and finding.remedy for finding in errors)
    one_more = {name: value + 8 for name, value in limits.items()}
    assert not place(mlp(), chip(**one_more)).excess


def test_many_thresholds_fit_once_they_are_folded() -> None:
    found = list(check_chip(mlp(np.arange(1, 11)), chip(thresholds_per_core=8)))
    (warning,) = [finding for finding in found if finding.slug == "does-not-fit"]
    assert (warning.severity, warning.node) == ("warning", "a")
    assert "10 needed, the limit is 8" in warning.reason
    assert "folded" in warning.remedy


@pytest.mark.parametrize("thresholds", ["unrolled", "projected"])
def test_check_refuses_thresholds_per_pixel_with_remedies_that_lead_on(tmp_path: Path, thresholds: str) -> None:
    net = stl.SpikingGraph(conv_net(np.random.default_rng(0), "pixel"))
    findings = [finding for finding in net.check("netx").findings if finding.slug == "per-pixel-threshold"]
    assert [(finding.node, finding.severity) for finding in findings] == [("lif1", "error")]
    net.check("netx", thresholds=thresholds).raise_if_unsupported()
    with pytest.raises(
        stl.InputError, match=f"thresholds: expected one of .*; found '{thresholds[:-1]}' .did you mean '{thresholds}'"
    ):
        net.check("netx", thresholds=thresholds[:-1])
    assert f"thresholds='{thresholds}'" in findings[0].remedy
    x = np.ones((4, 2, *net.program.inputs[0].shape), np.float32)
    with pytest.raises(stl.UnsupportedError, match="shared kernels cannot absorb"):
        net.export(tmp_path / "net.net", x=x)
    net.export(tmp_path / "net.net", x=x, thresholds=thresholds)
    assert (tmp_path / "net.net").is_file()


@examples(20)
@given(st.integers(0, 1000), st.sampled_from(["simple", "balanced"]))
def test_conv_cores_hold_every_neuron_once_and_count_their_inputs(seed: int, how: Any) -> None:
    rng = np.random.default_rng(seed)
    groups, stride, padding = int(rng.choice([1, 2])), int(rng.integers(1, 3)), int(rng.integers(0, 2))
    weight = np.ones((4, 2 // groups, *rng.integers(1, 4, 2)))
    build = Builder((2, 5, 6)).conv(
        "c", weight, None, ((padding, padding),) * 2, stride=(stride, stride), groups=groups
    )  # fmt: skip
    program = build.lif("a", 1.0).program()
    with patch("stl_deploy.exporters.netx.placement.AT_ONCE", int(rng.choice([1, 200, 2**25]))):
        placed = place(program, chip(neurons_per_core=int(rng.integers(1, 30))), how)
    covered = [i for core in placed.placement.cores for i in range(core.first, core.last)]
    assert covered == list(range(int(np.prod(program.by_name["a"].shape))))
    for core in placed.placement.cores:
        assert core.used["in_axons"] == _inputs_by_probing(program, core.first, core.last)


def test_output_axons_go_to_the_cores_that_read_a_neuron() -> None:
    """8 neurons in a row on 4 cores, read by kernels of 3: those beside another core reach it, too."""
    kernel = np.ones((1, 1, 1, 3))
    build = Builder((1, 1, 8)).conv("c1", kernel, None, ((0, 0), (1, 1))).lif("a", 1.0)
    program = build.conv("c2", kernel, None, ((0, 0), (1, 1))).lif("b", 1.0).program()
    placed = place(program, chip(neurons_per_core=2))
    assert [core.used["out_axons"] for core in placed.placement.cores if core.node == "a"] == [3, 4, 4, 3]
    assert [core.used["out_axons"] for core in placed.placement.cores if core.node == "b"] == [2, 2, 2, 2]


@examples(20)
@given(st.integers(0, 1000))
def test_input_axons_limit_a_core_to_the_size_that_fits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = Builder((2, 5, 6)).conv("c", np.ones((4, 2, 2, 3)), None, ((1, 1), (0, 0))).lif("a", 1.0).program()
    limit = int(rng.integers(12, 60))
    for core in place(program, chip(in_axons_per_core=limit)).placement.cores:
        assert core.used["in_axons"] == _inputs_by_probing(program, core.first, core.last) <= limit


def _inputs_by_probing(program: Program, first: int, last: int) -> int:
    """Inputs that change a block's sums, found by setting each alone."""
    from stl_deploy.graph.kernels import apply

    x = np.eye(60, dtype=np.float32).reshape(60, 2, 5, 6)
    sums = apply(program.by_name["c"], x).reshape(60, -1)
    return int((sums[:, first:last] != 0).any(axis=1).sum())


def test_every_limit_has_a_source_and_a_grade() -> None:
    for found in load_chips().values():
        assert found.limits
        for limit in found.limits.values():
            assert limit.source
            assert limit.grade in EVIDENCE
            assert str(limit).endswith(f"{EVIDENCE[limit.grade]})")


def test_real_chips_hold_a_small_net() -> None:
    program = conv_net(np.random.default_rng(0))
    for found in load_chips().values():
        assert not [finding for finding in check_chip(program, found) if finding.severity == "error"]


def test_every_refusal_is_told() -> None:
    build = Builder((2, 4, 4)).conv("c", np.ones((2, 2, 2, 2)), None, ((0, 1), (0, 1))).lif("a", 1.0, reset="subtract")
    program = build.sum_pool("p").lif("b", 2.0, beta=None).reshape("r", (8,)).linear("l", np.ones((2, 8)))
    found = [(f.node, f.slug) for f in Netx().check(program.lif("d", -1.0).program())]
    assert set(found) >= {
        ("c", "asymmetric-padding"),
        ("a", "soft-reset"),
        ("p", "graded-pool"),
        ("d", "threshold-not-positive"),
    }
    assert len(found) == len(set(found))
    assert refusals(mlp()) == []


def test_room_is_asked_for_what_netx_holds_alone() -> None:
    program = Builder((3,)).linear("fc", np.eye(3)).lif("a", 1.0, reset="subtract").program()
    findings = [(finding.node, finding.slug) for finding in check_chip(program, chip())]
    assert findings == [("a", "soft-reset"), ("in", "input-unstated"), ("fc", "quantisation"), ("a", "quantisation")]
