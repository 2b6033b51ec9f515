"""Random integer graphs: the compiled program against the integer model, every spike of every layer."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import MISSING, find_compiler
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.program import Program
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.integers.graph import ConvNode, IntegerGraph, PopulationNode
from stl_deploy.exporters.integers.simulate import simulate
from stl_deploy.exporters.integers.store import About
from tests.exporters.c.graphs import Grower

pytestmark = pytest.mark.skipif(find_compiler() is None, reason=MISSING)
SANITIZED = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def program(graph: IntegerGraph) -> Program:
    plan = make_plan(graph)
    return Program(render_plan(plan, About()), plan)


def fits(graph: IntegerGraph) -> bool:
    """Whether its sums are within the registers."""
    try:
        make_plan(graph)
    except UnsupportedError as error:
        return error.slug != "sums-too-large"
    return True


def differing(graph: IntegerGraph, x: Any, options: tuple[str, ...] = ()) -> int:
    ours, model = program(graph).run(x, record=True, options=options), simulate(graph, x, record=True)
    assert set(ours.spikes) == set(model.spikes)
    spikes = sum(int((ours.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    return spikes + int((ours.y != model.y).sum())


@pytest.mark.parametrize("block", range(8))
def test_every_spike_is_the_integer_models_under_sanitizers(block: int) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(block * 10**6, (block + 1) * 10**6 - 1))
    def check(seed: int) -> None:
        graph, x = Grower(seed).grow()
        assume(fits(graph))
        assert differing(graph, x, SANITIZED) == 0

    check()


def test_the_random_graphs_are_worth_comparing() -> None:
    rates, kinds, clipped = [], set(), 0
    for seed in range(200):
        graph, x = Grower(seed).grow()
        if not fits(graph):
            continue
        rates += [float(spikes.mean()) for spikes in simulate(graph, x, record=True).spikes.values()]
        kinds |= {type(node).__name__ for node in graph.nodes}
        clipped += any(rule.clips or rule.wraps for rule in make_plan(graph).rules)
    assert np.mean([0.02 < rate < 0.98 for rate in rates]) > 0.6
    assert len(kinds) == 10
    assert clipped > 20
    nodes = [node for seed in range(200) for node in Grower(seed).grow()[0].nodes]
    assert {node.neuron.reset for node in nodes if isinstance(node, PopulationNode)} == {
        "value", "subtract", "subtract_delayed", "value_delayed",
    }  # fmt: skip
    convs = [node for node in nodes if isinstance(node, ConvNode)]
    assert {len(node.shape) for node in convs} == {2, 3}
    assert any(node.groups > 1 for node in convs)
    assert any(max(node.dilation) > 1 for node in convs)


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3", "-Os"])
def test_no_level_of_optimisation_changes_a_spike(level: str) -> None:
    for seed in range(900, 906):
        assert differing(*Grower(seed).grow(), (level,)) == 0


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_another_compiler_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clang")
    for seed in range(910, 920):
        assert differing(*Grower(seed).grow()) == 0
