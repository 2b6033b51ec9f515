"""A target of someone else's package goes the whole way by its entry point, with no line of ours that knows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy import verbs
from stl_deploy.cli import main
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters import targets
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.lower import METADATA_KEY

PACKAGE = Path(__file__).parent / "example_target"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installer leaves it: its module, and its metadata with the entry point."""
    place, project = tmp_path_factory.mktemp("site"), tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copy(PACKAGE / "stl_json_target.py", place)
    about = place / f"stl_json_target-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, entries in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(autouse=True)
def found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    targets.registry.cache_clear()
    targets._known.cache_clear()
    yield
    targets.registry.cache_clear()
    targets._known.cache_clear()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Twelve inputs, five LIF, three LIF."""
    rng = np.random.default_rng(5)

    def lif(size: int) -> nir.LIF:
        one = np.ones(size, np.float32)
        return nir.LIF(tau=one * 2e-4, r=one * 2, v_leak=one * 0, v_threshold=one, v_reset=one * 0)

    def affine(out: int, inputs: int) -> nir.Affine:
        return nir.Affine(rng.normal(0, 0.6, (out, inputs)).astype(np.float32), np.full(out, 0.1, np.float32))

    nodes = {
        "input": nir.Input({"input": np.array([12])}),
        "fc1": affine(5, 12),
        "lif1": lif(5),
        "fc2": affine(3, 5),
        "lif2": lif(3),
        "output": nir.Output({"output": np.array([3])}),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    graph.metadata = {METADATA_KEY: {"dialect": {"dt": 1e-4}}}
    write_nir(graph, tmp_path / "net.nir")
    return tmp_path / "net.nir"


def cli(*words: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_it_is_found_by_a_fresh_process(installed: Path) -> None:
    path = f"import sys; sys.path.insert(0, {str(installed)!r})"
    code = f"{path}; from stl_deploy.cli import main; main(['targets', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert [one for one in listed["targets"] if one["name"] == "json"] == [
        {"name": "json", "suffix": ".json", "about": "networks of dense layers as JSON"}
    ]
    assert [one["agrees_with"] for one in listed["backends"] if one["name"] == "json"] == ["reference"]


def test_refusals_list_it(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("export", net, "--to", "jason", "-o", net.with_name("a.json")) == 2
    assert "json; found 'jason' (did you mean 'json'?)" in capsys.readouterr().err


def test_it_is_exported_read_back_verified_and_simulated(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, x, y = (net.with_name(name) for name in ("net.json", "x.npz", "y.npz"))
    assert cli("export", net, "--to", "json", "-o", path, "--json") == 0
    manifest = json.loads(capsys.readouterr().out)
    (run,) = manifest["verified"]["runs"]
    assert (run["backend"], run["exact"], run["required"], run["artifact"]) == ("json", True, True, str(path))
    assert run["compared"] == 16 * 8 * (5 + 3)
    assert (manifest["target"], manifest["nodes"]) == ("json", 6)
    assert cli("verify", net, "--against", path, "json", "--json") == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["net.json", "json"]
    np.savez(x, x=(np.random.default_rng(1).random((7, 4, 12)) < 0.4).astype(np.float32))
    for source, backend in ((path, "json"), (net, "json"), (net, "reference")):
        assert cli("simulate", source, "--input", x, "--backend", backend, "-o", y, "--record") == 0
        with np.load(y) as made:
            spikes = {name: made[name] for name in ("spikes__lif1", "spikes__lif2")}
        assert 0 < spikes["spikes__lif2"].mean() < 1
    assert cli("check", net, "--target", "json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["targets"] == {"json": "faithful"}


def test_a_file_that_spikes_otherwise_fails(net: Path) -> None:
    path = net.with_name("net.json")
    verbs.export(net, "json", path, indent=2)
    kept = json.loads(path.read_text())
    kept["nodes"][1]["weight"]["floats"][0][0] += 3
    path.write_text(json.dumps(kept))
    assert cli("verify", net, "--against", path) == 1
    path.write_text("{}")
    assert cli("verify", net, "--against", path) == 2


def test_what_it_cannot_hold_is_refused_by_node(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = nir.read(net)
    graph.nodes["fc2"] = nir.Flatten({"input": np.array([5])}, 0, -1)
    graph.nodes["output"] = nir.Output({"output": np.array([5])})
    graph.nodes["lif2"] = graph.nodes["lif1"]
    write_nir(graph, net)
    assert cli("check", net, "--target", "json", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert {n["node"]: n["targets"]["json"] for n in report["nodes"]}["fc2"] == "unsupported"
    with pytest.raises(
        UnsupportedError, match="node 'fc2': this JSON holds dense layers and plain neurons, not a Resh"
    ):
        verbs.export(net, "json", net.with_name("net.json"))
    assert [path.name for path in net.parent.iterdir()] == ["net.nir"]


def test_its_options_are_its_own(net: Path) -> None:
    verbs.export(net, "json", net.with_name("net.json"), indent=4)
    assert '\n    "dt"' in net.with_name("net.json").read_text()
    with pytest.raises(InputError, match="expected json for option 'indent'; found onnx; leave it out"):
        verbs.export(net, "onnx", net.with_name("net.onnx"), indent=4)


def test_nothing_of_ours_names_it() -> None:
    root = PACKAGE.parents[1]
    for top in ("stl_deploy", "exporters", "energy"):
        assert not [file for file in (root / top).rglob("*.py") if "json_target" in file.read_text()]
