"""Export refuses what check finds, at the same node by the same slug, and nothing else, on drawn networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stl_deploy.config.options import CheckOptions
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.targets import registry
from stl_deploy.graph.exact import with_input
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.artifacts import write
from stl_deploy.pipeline.check import check
from stl_deploy.pipeline.network_input import drawn
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from tests.exporters.obstacles import Obstacles

NETWORKS, AT_ONCE = 400, 10


def refused_by_export(program: Program, target: str, x: NetworkInput, path: Path, *, is_random: bool) -> Finding | None:
    kind = registry().formats[target]
    options = {"origin": {"source": "a network", "sha256": ""}, "x": x, "is_random": is_random}
    try:
        write(program, kind, path / f"net{kind.suffix or ''}", {}, **options)
    except StlDeployError as error:
        return from_error(error, target)
    return None


def differences(seed: int, target: str, path: Path) -> list[str]:
    """Return where check and export differ, of input as given and of input that export draws."""
    net = SpikingGraph(Obstacles(seed).program())
    made = []
    for is_random in (False, True):
        x = drawn(net.program).x
        report = check(net, [target], CheckOptions(), None if is_random else x)
        errors = {(each.node, each.slug) for each in report.findings if each.severity == "error"}
        folder = path / f"{seed} {target} {is_random}"
        folder.mkdir()
        refusal = refused_by_export(net.program, target, x, folder, is_random=is_random)
        if refusal is None and errors:
            made.append(f"{seed} {target}: export writes, check finds {errors}")
        if refusal is not None and (refusal.node, refusal.slug) not in errors:
            made.append(f"{seed} {target}: export refuses {refusal}, check finds {errors}")
    return made


@pytest.mark.push(4)
@pytest.mark.parametrize("first", range(0, NETWORKS, AT_ONCE))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_export_refuses_what_check_finds(first: int, tmp_path: Path) -> None:
    targets = [name for name in registry().formats]
    made = [
        line for seed in range(first, first + AT_ONCE) for name in targets for line in differences(seed, name, tmp_path)
    ]
    assert not made


@pytest.mark.parametrize(
    ("stated", "declared", "seen", "wanted"),
    [
        ({"coding": "analog"}, None, "graded", {"coding": "graded"}),
        ({"coding": "spikes"}, None, "graded", {"coding": "spikes"}),
        ({"coding": "spikes"}, None, "analog", {"coding": "analog"}),
        ({"coding": "analog", "fraction_bits": 4}, None, "analog", {"coding": "analog", "fraction_bits": 4}),
        ({"coding": "analog"}, {"fraction_bits": 2}, "analog", {"fraction_bits": 2}),
        ("damaged", None, "graded", {"coding": "graded"}),
        (None, None, "analog", {"coding": "analog"}),
    ],
)
def test_what_is_known_of_the_input(stated: Any, declared: Any, seen: str, wanted: Any) -> None:
    metadata = {} if stated is None else {"input": stated}
    assert with_input(metadata, declared, {"coding": seen}) == {"input": wanted}


def test_the_drawn_networks_meet_many_refusals() -> None:
    nets = [SpikingGraph(Obstacles(seed).program()) for seed in range(60)]
    slugs = {
        each.slug for net in nets for each in check(net, None, CheckOptions()).findings if each.severity == "error"
    }
    assert len(slugs) > 30
    held = [net for net in nets if check(net, ["c"], CheckOptions()).ok]
    assert len(held) > 5
