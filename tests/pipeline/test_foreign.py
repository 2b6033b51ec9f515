"""A file that another framework wrote: simulated, exported to ONNX and costed, with nothing but its dialect named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy import verbs
from stl_deploy.errors import CheckFailed, InputError, ToolError
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.graph.exact import round_to_grid
from stl_deploy.report import graph_report as report_graph
from stl_deploy.runs.source import read
from tests.conformance.golden import GOLDEN
from tests.graph import nets
from tests.hostile.nets import small_graph

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


def _golden(name: str, folder: Path) -> tuple[Path, Path]:
    source, given = folder / "net.nir", folder / "x.npz"
    with np.load(GOLDEN / f"{name}.npz") as kept:
        source.write_bytes(kept["nir"].tobytes())
        np.savez(given, x=kept["x"].astype(np.float32))
    return source, given


UNTOLD = "snntorch-read-snntorch-mlp"
"""snnTorch's feed-forward networks look like anyone's."""


def _verbs(source: Path, x: Path, folder: Path) -> dict[str, list[object]]:
    return {
        "simulate": ["simulate", source, "--input", x, "--backend", "reference", "-o", folder / "y.npz"],
        "export": ["export", source, "--to", "onnx", "-o", folder / "net.onnx"],
        "energy": ["energy", source, "--input", x],
        "verify": ["verify", source, "--against", source],
    }


@pytest.mark.parametrize("verb", ["simulate", "export", "energy", "verify"])
def test_a_file_that_does_not_say_how_it_is_meant_is_not_read_as_spec(verb: str, cli: Any, tmp_path: Path) -> None:
    source, given = _golden(UNTOLD, tmp_path)
    found = cli(*_verbs(source, given, tmp_path)[verb])
    assert found.code == 2
    assert "the file does not say how it is meant" in found.err
    said = " ".join(found.err.split())
    assert "--dialect NAME): spec (NIR's own equations, reset to a value), snntorch (" in said
    assert {path.name for path in tmp_path.iterdir()} == {"net.nir", "x.npz"}


@pytest.mark.parametrize("verb", ["simulate", "export", "energy"])
def test_a_writer_that_the_form_gives_away_is_said(verb: str, cli: Any, tmp_path: Path) -> None:
    source, given = _golden("snntorch-read-snntorch-recurrent", tmp_path)
    found = cli(*_verbs(source, given, tmp_path)[verb])
    assert found.code == 0
    assert "Dialect: snntorch, as" in found.err
    assert "snnTorch's files do not say the reset; read as snntorch; others: snntorch_zero" in " ".join(
        found.err.split()
    )


def test_an_artifact_keeps_the_dialect_that_was_recognised(cli: Any, tmp_path: Path) -> None:
    source, _ = _golden("spikingjelly-read-spikingjelly-mlp", tmp_path)
    assert cli("export", source, "--to", "nir", "-o", tmp_path / "out.nir").code == 0
    assert read_nir(tmp_path / "out.nir").metadata["stl_deploy"]["dialect"]["start"] == "v_reset"
    manifest = json.loads((tmp_path / "out.nir.manifest.json").read_text())
    assert (manifest["dialect"]["compare"], manifest["dialect"]["start"]) == ("ge", "v_reset")


def test_check_and_show_go_on_as_spec_and_say_so(cli: Any, tmp_path: Path) -> None:
    source, given = _golden(UNTOLD, tmp_path)
    checked = cli("check", source, "--input", given, "--json")
    assert checked.code == 0
    assert checked.json["findings"][0]["slug"] == "dialect-unstated"
    shown = cli("show", source)
    assert shown.code == 0
    assert "dialect-unstated" in shown.err


def test_names_of_dialects_in_any_case(cli: Any, tmp_path: Path) -> None:
    source, given = _golden(UNTOLD, tmp_path)
    done = cli(*_verbs(source, given, tmp_path)["simulate"], "--dialect", "SnnTorch")
    assert done.code == 0
    wrong = cli(*_verbs(source, given, tmp_path)["energy"], "--dialect", "snntroch")
    assert wrong.code == 2
    assert "did you mean 'snntorch'?" in wrong.err


def test_the_face_warns_of_what_it_recognised(tmp_path: Path) -> None:
    source, _ = _golden("rockpool-read-rockpool-mlp-cuba", tmp_path)
    with (
        pytest.warns(UserWarning, match="Dialect: rockpool, as .*names of its classes; dt 0.001"),
        pytest.warns(UserWarning, match="Rockpool's files do not say the neurons' bias; read as 0"),
    ):
        assert read(source).dialect.synapse == "exp_add"
    with pytest.raises(InputError, match="does not say how it is meant"):
        read(_golden(UNTOLD, tmp_path)[0])


@pytest.fixture
def analog(tmp_path: Path) -> tuple[Path, Path]:
    """A network whose input is real numbers, and such input."""
    rng = np.random.default_rng(3)
    nodes = {
        "input": nir.Input(np.array([6])),
        "fc": nir.Linear(rng.integers(-8, 9, (5, 6)).astype(np.float32) / 8),
        "lif": nets.lif((5,), r=2),
        "output": nir.Output(np.array([5])),
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
    write_nir(nets.graph(nodes, edges, {"stl_deploy": {"dialect": {"compare": "ge"}}}), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=rng.random((12, 4, 6)).astype(np.float32))
    return tmp_path / "net.nir", tmp_path / "x.npz"


def test_analog_input_to_netx_is_rounded_where_asked(analog: tuple[Path, Path], cli: Any, tmp_path: Path) -> None:
    call = ["export", analog[0], "--to", "netx", "-o", tmp_path / "net.net", "--input", analog[1]]
    refused = cli(*call)
    assert refused.code == 2
    assert "give --input-grid BITS" in refused.err
    done = cli(*call, "--input-grid", "6", "--json")
    assert done.code == 0
    assert re.search(r"input rounded by up to 0\.007\d*, to multiples of 2\^-6", done.err)
    assert "threshold forms on all 4 samples:" in done.err
    assert (done.json["input_scale"], done.json["forms_samples"]) == (64, 4)


def test_a_grid_may_be_said_to_every_verb_that_converts(analog: tuple[Path, Path], cli: Any, tmp_path: Path) -> None:
    net, given = analog
    with np.load(given) as kept:
        x = kept["x"]
    rounded = tmp_path / "rounded.npz"
    np.savez(rounded, x=np.round(x * 64) / np.float32(64))
    simulate = ["simulate", net, "--backend", "loihi", "-o", tmp_path / "y.npz", "--record", "--input"]
    verify = ["verify", net, "--against", "onnx", "--against", "loihi", "--input"]
    check = ["check", net, "--target", "netx", "--target", "onnx"]
    assert "--input-grid BITS" in cli(*simulate, given).err
    assert cli(*check, "--json").json["targets"] == {"netx": "approximate", "onnx": "approximate"}
    for call in ([*simulate, given], [*verify, given], check):
        assert "--input-grid -1: expected 0 to 24" in cli(*call, "--input-grid", "-1").err
        assert cli(*call, "--input-grid", "6").code == 0
    with np.load(tmp_path / "y.npz") as kept:
        found = kept["y"]
    graph = read(net)
    np.testing.assert_array_equal(found, graph.simulate(x, backend="loihi", input_grid=6).y)
    np.testing.assert_array_equal(
        graph.simulate(x, input_grid=6).y, graph.simulate(np.round(x * 64) / np.float32(64)).y
    )
    assert cli(*check, "--json", "--input-grid", "6").json["targets"] == {"netx": "approximate", "onnx": "faithful"}
    assert graph.check("onnx", input_grid=6).targets == {"onnx": "faithful"}
    folded = cli("fold", net, "-o", tmp_path / "folded.nir", "--exact-grid", "--input-grid", "6", "--json")
    assert folded.json["exact"]
    assert read_nir(tmp_path / "folded.nir").metadata["stl_deploy"]["input"]["fraction_bits"] == 6


@pytest.mark.push(2)
@pytest.mark.parametrize(("target", "name"), [("netx", "a.net"), ("onnx", "a.onnx"), ("c", "a"), ("nir", "a.nir")])
def test_verify_takes_the_grid_that_an_artifact_was_exported_for(
    analog: tuple[Path, Path], cli: Any, tmp_path: Path, target: str, name: str
) -> None:
    net, given = analog
    call = ["export", net, "--to", target, "--input", given, "-o", tmp_path / name]
    exported = cli(*call, "--input-grid", "6", "--json").json["verified"]["runs"][0]
    verify = ["verify", net, "--no-lava", "--against", tmp_path / name, "--input", given]
    found = cli(*verify, "--json")
    assert found.code == 0
    assert f"{name} was exported for input in multiples of 2^-6" in found.err
    assert found.json["runs"][0] == exported
    with np.load(given) as kept:
        assert read(net).verify(tmp_path / name, kept["x"]).report.runs[0].differing == exported["differing"]
    coarser = cli(*verify, "--input-grid", "3")
    assert coarser.code == 0
    assert f"{name} was exported for input in multiples of 2^-6" in coarser.err
    assert "was exported for" not in cli(*verify, "--input-grid", "6").err
    finer = cli(*verify, "--input-grid", "9")
    assert finer.code == (2 if target in ("netx", "c") else 0)
    assert ("on the grid of 1/64 that the network was exported with" in finer.err) is (finer.code == 2)


def test_an_artifact_of_integers_takes_no_fractions(analog: tuple[Path, Path], cli: Any, tmp_path: Path) -> None:
    net, given = analog
    np.savez(tmp_path / "whole.npz", x=np.arange(12 * 2 * 6).reshape(12, 2, 6) % 3)
    call = ["export", net, "--to", "netx", "-o", tmp_path / "a.net", "--input", tmp_path / "whole.npz"]
    assert cli(*call).code == 0
    verify = ["verify", net, "--no-lava", "--against", tmp_path / "a.net", "--input"]
    assert cli(*verify, tmp_path / "whole.npz").code == 0
    for more in ([], ["--input-grid", "6"]):
        refused = cli(*verify, given, *more)
        assert refused.code == 2
        assert "a.net was exported for integers as input; found fractions; export it again" in refused.err


@pytest.mark.filterwarnings("always")
def test_a_net_file_alone_takes_integers_and_says_by_what_real_input_is_multiplied(
    analog: tuple[Path, Path], cli: Any, tmp_path: Path
) -> None:
    net, given = analog
    made = tmp_path / "a.net"
    assert cli("export", net, "--to", "netx", "-o", made, "--input", given, "--input-grid", "6").code == 0
    with np.load(given) as kept:
        whole = np.round(kept["x"] * 64)
    np.savez(tmp_path / "whole.npz", x=whole)
    np.savez(tmp_path / "spikes.npz", x=whole > 0)
    simulate = ["simulate", made, "--backend", "loihi", "-o", tmp_path / "y.npz", "--input"]
    refused = cli(*simulate, given)
    assert refused.code == 2
    assert "a.net: expected integers, as a .net file takes them; found others; this one says: real" in refused.err
    taken = cli(*simulate, tmp_path / "whole.npz")
    assert (taken.code, "warning" in taken.err) == (0, False)
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"], read(net).simulate(whole / 64, backend="loihi", input_grid=6).y)
    told = cli(*simulate, tmp_path / "spikes.npz")
    assert told.code == 0
    assert "a.net takes real input times 64; x, no larger than 1, is taken as multiplied already" in told.err


@pytest.mark.parametrize("target", ["netx", "c"])
def test_check_says_what_export_will_say_of_real_input(
    analog: tuple[Path, Path], cli: Any, tmp_path: Path, target: str
) -> None:
    net, given = analog
    np.savez(tmp_path / "whole.npz", x=np.ones((12, 2, 6), np.int8))

    def told(*more: Any, code: int = 0) -> list[tuple[str, str, str]]:
        found = cli("check", net, "--target", target, "--json", *more)
        assert found.code == code
        return [
            (one["slug"], one["severity"], one["remedy"])
            for one in found.json["findings"]
            if one["slug"].startswith(("analog", "input"))
        ]

    assert told() == [("input-unstated", "info", "give real numbers a grid with --input-grid BITS")]
    refused = ("analog-input", "error", "give --input-grid BITS here and to export")
    assert told("--input", given, code=1) == [refused]
    assert told("--input", tmp_path / "whole.npz") == told("--input-grid", "6") == []


def test_real_input_is_rounded_to_the_declared_grid(analog: tuple[Path, Path], cli: Any, tmp_path: Path) -> None:
    """Every verb computes what it does of input that was rounded before, and says so once."""
    declared = tmp_path / "declared.nir"
    done = cli("export", analog[0], "--to", "nir", "-o", declared, "--input", analog[1], "--input-grid", "4")
    assert done.code == 0
    assert read_nir(declared).metadata["stl_deploy"]["input"]["fraction_bits"] == 4
    with np.load(analog[1]) as kept:
        x = kept["x"]
    y = np.zeros(4, np.int64)
    given = {name: tmp_path / f"{name}.npz" for name in ("real", "rounded", "beyond")}
    for path, values in zip(given.values(), (x, np.round(x * 16) / 16, x * 4), strict=True):
        np.savez(path, x=values, y=y)
    made = tmp_path / "y.npz"
    for call in (
        ["verify", declared, "--against", declared],
        ["export", declared, "--to", "onnx", "-o", tmp_path / "net.onnx"],
        ["export", declared, "--to", "c", "-o", tmp_path / "c"],
        ["report", declared, "-o", tmp_path / "out"],
        ["energy", declared],
        ["energy", declared, "--over-steps"],
        ["simulate", declared, "-o", made, "--backend", "reference"],
        ["simulate", declared, "-o", made, "--backend", "loihi"],
    ):
        refused = cli(*call, "--input", given["beyond"])
        assert refused.code == 2
        assert "not on the grid that the graph declares, multiples of 2^-4 up to 1" in refused.err
        assert call[0] != "export" or not Path(call[-1]).exists()
        outcomes = [cli(*call, "--input", path, "--json") for path in (given["rounded"], given["real"])]
        said = [outcome.err.count("input rounded to multiples of 2^-4, as the graph declares") for outcome in outcomes]
        assert (said, [outcome.code for outcome in outcomes]) == ([0, 1], [0, 0]), call
        if call[0] == "energy" and "--over-steps" not in call:
            assert outcomes[0].json["totals"] == outcomes[1].json["totals"]
    with np.load(made) as found:
        np.testing.assert_array_equal(found["y"], read(declared).simulate(np.round(x * 16) / 16, backend="loihi").y)


def test_a_silent_network_fails_its_check_unless_that_is_allowed(
    analog: tuple[Path, Path], cli: Any, tmp_path: Path
) -> None:
    net, given = analog[0], tmp_path / "silent.npz"
    np.savez(given, x=np.zeros((12, 4, 6), np.float32))
    for call in (
        ["simulate", net, "--input", given, "--backend", "reference", "-o", tmp_path / "y.npz"],
        ["verify", net, "--against", "onnx", "--input", given],
    ):
        refused, allowed = cli(*call), cli(*call, "--allow-silent")
        assert (refused.code, allowed.code) == (1, 0), call
        assert "no layer spiked on x, which proves nothing" in refused.err
    assert cli("verify", net, "--against", "onnx", "--input", analog[1]).code == 0
    silent = read(net).verify(net, np.zeros((12, 4, 6), np.float32))
    with pytest.raises(CheckFailed, match=r"no layer spiked on x, .*, or allow_silent=True"):
        silent.require()
    read(net).verify(net, np.zeros((12, 4, 6), np.float32), allow_silent=True).require()


@pytest.mark.push(1)
@pytest.mark.parametrize("verb", ["energy", "report"])
def test_energy_and_report_round_their_input_as_asked(
    verb: str, analog: tuple[Path, Path], cli: Any, tmp_path: Path
) -> None:
    with np.load(analog[1]) as kept:
        x = kept["x"]
    rounded = tmp_path / "rounded.npz"
    np.savez(rounded, x=round_to_grid(x, 1), y=np.zeros(x.shape[1], np.int64))
    np.savez(tmp_path / "x.npz", x=x, y=np.zeros(x.shape[1], np.int64))
    outputs = ["-o", tmp_path / "out"] if verb == "report" else []
    given = cli(verb, analog[0], "--input", tmp_path / "x.npz", "--input-grid", "1", *outputs, "--json")
    assert re.search(r"input rounded by up to 0\.\d+, to multiples of 2\^-1", given.err)
    by_hand = cli(verb, analog[0], "--input", rounded, *outputs, "--json").json
    raw = cli(verb, analog[0], "--input", tmp_path / "x.npz", *outputs, "--json").json
    energies = [one["energy"] if verb == "report" else one for one in (given.json, by_hand, raw)]
    assert energies[0]["totals"] == energies[1]["totals"] != energies[2]["totals"]
    assert "The input was rounded to multiples of 2^-1, as asked." in energies[0]["assumptions"]
    if verb == "energy":
        assert read(analog[0]).energy(x, input_grid=1).totals == read(analog[0]).energy(round_to_grid(x, 1)).totals
        over = cli("energy", analog[0], "--input", tmp_path / "x.npz", "--input-grid", "1", "--over-steps", "--json")
        assert over.json == cli("energy", analog[0], "--input", rounded, "--over-steps", "--json").json


def test_a_report_says_why_onnx_runtime_was_not_compared(
    analog: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_arguments: Any) -> Any:
        raise ToolError("onnxruntime is not installed")

    monkeypatch.setattr(report_graph, "open_runner", missing)
    twin = verbs.report_graph(analog[0], analog[1], output=tmp_path / "out")
    assert twin["parity"] == []
    assert "ONNX Runtime was not compared: onnxruntime is not installed" in twin["assumptions"]


def test_a_report_names_silent_layers_beside_its_parity(analog: tuple[Path, Path], tmp_path: Path) -> None:
    graph = read_nir(analog[0])
    for node in graph.nodes.values():
        if hasattr(node, "v_threshold"):
            node.v_threshold = node.v_threshold * np.float32(1e6)
    write_nir(graph, tmp_path / "high.nir")
    twin = verbs.report_graph(tmp_path / "high.nir", analog[1], output=tmp_path / "out")
    assert [row["differing"] for row in twin["parity"]] == [0]
    (silent,) = [text for text in twin["assumptions"] if text.startswith("no spike in ")]
    assert "a silent layer proves nothing" in silent
    assert silent in (tmp_path / "out" / "report.html").read_text()


def test_a_foreign_file_is_reported(analog: tuple[Path, Path], cli: Any, tmp_path: Path) -> None:
    found = cli("report", analog[0], "--input", analog[1], "-o", tmp_path / "out", "--json")
    assert found.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == found.json
    (onnx,) = found.json["parity"]
    assert (onnx["artifact"], onnx["differing"], onnx["compared"]) == ("ONNX Runtime", 0, 12 * 4 * 5)
    assert found.json["assumptions"][0] == "Dialect: as the graph's metadata declare."
    assert found.json["energy"]["totals"]["synops"] > 0
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert "give --input X.npz" in cli("report", analog[0]).err
    source, given = _golden(UNTOLD, tmp_path)
    assert cli("report", source, "--input", given).code == 2


def test_netx_is_approximate_where_integers_are_rounded(analog: tuple[Path, Path], cli: Any) -> None:
    """Export may find integers that agree on every spike of one input; nothing makes them agree on all."""
    found = cli("check", analog[0], "--target", "netx", "--json")
    assert found.code == 0
    assert found.json["targets"] == {"netx": "approximate"}
    told = {
        finding["node"]: finding["reason"] for finding in found.json["findings"] if finding["slug"] == "quantisation"
    }
    assert told == {
        "fc": "weights of 5 bits, sign included, fit into 8; export chooses their scale from its input",
        "lif": "its threshold is an integer, and the leak is rounded toward zero in each step",
    }
    held = {node["node"]: node["targets"]["netx"] for node in found.json["nodes"]}
    assert held == {"input": "faithful", "fc": "approximate", "lif": "approximate", "output": "faithful"}


@pytest.mark.parametrize("target", ["netx", "verilog"])
def test_layers_beside_one_that_is_refused_are_not_called_faithful(target: str, cli: Any, tmp_path: Path) -> None:
    ones = np.ones(4, np.float32)
    neurons = nir.LIF(tau=2e-4 * ones, r=ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "fc": nir.Linear(np.eye(4, dtype=np.float32) * 0.3),
        "lif": neurons,
        "leaky": nir.LIF(tau=2e-4 * ones, r=ones, v_leak=0.2 * ones, v_threshold=ones, v_reset=0 * ones),
        "output": nir.Output({"output": np.array([4])}),
    }
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph(nodes, list(zip(nodes, list(nodes)[1:], strict=False))))
    held = cli("check", path, "--dialect", "norse", "--target", target, "--json").json["nodes"]
    held = {node["node"]: node["targets"][target] for node in held}
    assert (held["fc"], held["lif"], held["leaky"]) == ("approximate", "approximate", "unsupported")


@pytest.mark.parametrize(("target", "suffix"), [("onnx", ".onnx"), ("netx", ".net")])
def test_artifacts_are_checked_and_shown(
    analog: tuple[Path, Path], cli: Any, tmp_path: Path, target: str, suffix: str
) -> None:
    artifact = tmp_path / f"net{suffix}"
    call = ["export", analog[0], "--to", target, "-o", artifact, "--input", analog[1], "--input-grid", "4"]
    assert cli(*call).code == 0
    checked = cli("check", artifact, "--json")
    assert (checked.code, checked.json["targets"]) == (0, {target: "faithful"})
    shown = {row["node"]: row for row in cli("show", artifact, "--json").json}
    assert shown["lif"]["shape"] == ([5] if target == "netx" else shown["lif"]["shape"])
    assert {"lif"} <= set(shown)
    assert cli("check", artifact, "--target", "nir").code == 2
    artifact.write_bytes(b"damaged")
    broken = cli("check", artifact, "--json")
    assert (broken.code, broken.json["targets"]) == (1, {target: "unsupported"})


def test_average_pools_are_merged_by_a_command(cli: Any, tmp_path: Path) -> None:
    """What netx refuses, it takes once the pool is in the weights behind it."""
    source, x = _golden("spikingjelly-read-spikingjelly-conv-avg", tmp_path)
    assert cli("check", source, "--target", "netx").code == 1
    merged = tmp_path / "merged.nir"
    done = cli("fold", source, "--merge-pools", "-o", merged, "--json")
    assert done.code == 0
    assert done.json["merged"] == ["_2"]
    assert done.json["compared"]["runs"][0]["differing"] == 0
    assert not any(isinstance(node, nir.AvgPool2d) for node in read_nir(merged).nodes.values())
    found = cli("check", merged, "--target", "netx", "--json")
    assert {f["slug"] for f in found.json["findings"] if f["severity"] == "error"} <= {"v-start", "reset"}
    assert cli("fold", source, "--merge-pools").code == 2
    given = cli("fold", source, "--merge-pools", "--input", x, "-o", tmp_path / "again.nir")
    assert given.code == 0
    assert "samples of" in given.err
    assert "random" not in given.err


def test_what_is_read_is_not_written_over(cli: Any, tmp_path: Path) -> None:
    net, x = tmp_path / "net.nir", tmp_path / "x.npz"
    write_nir(small_graph(), net)
    np.savez(x, x=np.ones((3, 2, 4), np.float32))
    before = net.read_bytes(), x.read_bytes()
    simulate = ("simulate", net, "-i", x, "--backend", "reference", "-o")
    (tmp_path / "link.npz").symlink_to(x)
    for call, said in (
        ((*simulate, x), "x.npz, which is read; name another"),
        ((*simulate, tmp_path / "link.npz"), "x.npz, which is read; name another"),
        ((*simulate, net), "expected a name that ends in .npz for outputs; found '.nir'"),
        (("export", net, "--to", "nir", "-o", net), "net.nir, which is read; name another"),
        (("fold", net, "--exact-grid", "-o", net), "net.nir, which is read; name another"),
        (("fold", net, "--exact-grid", "-o", x), "expected a name that ends in .nir for a graph; found '.npz'"),
    ):
        done = cli(*call)
        assert done.code == 2
        assert said in done.err
    assert (net.read_bytes(), x.read_bytes()) == before


def test_a_graph_is_not_written_over_the_weights_it_is_folded_from(cli: Any, run_dir: Path) -> None:
    before = (run_dir / "model.safetensors").read_bytes()
    done = cli("fold", run_dir, "-o", run_dir / "model.safetensors")
    assert done.code == 2
    assert "expected a name that ends in .nir for a graph; found '.safetensors'" in done.err
    assert (run_dir / "model.safetensors").read_bytes() == before
