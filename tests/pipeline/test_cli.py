"""The command line as scripts meet it: exit codes, JSON on stdout, one sentence for bad input, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import yaml

from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from tests.exporters.witnesses import stand_in

VERBS = [
    "run",
    "train",
    "eval",
    "fold",
    "join",
    "export",
    "check",
    "show",
    "verify",
    "simulate",
    "energy",
    "report",
    "prices",
    "doctor",
    "targets",
    "datasets",
    "lava",
    "witness",
]


def test_help_teaches(cli: Any) -> None:
    shown = cli("--help")
    assert shown.code == 0
    for verb in VERBS:
        assert verb in shown.out
    assert "stl-deploy run digits" in shown.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(cli: Any, verb: str) -> None:
    assert cli(verb, "--help").code == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("frobnicate", "no such command 'frobnicate'; see stl-deploy --help"),
        ("train digits --mode stx", "invalid value for '--mode': 'stx' is not one of 'stl', 'sl', 'tl', 'ann'; see"),
        ("train digits --resum", "no such option: --resum"),
        ("train digits --seed x", "invalid value for '--seed': "),
        ("train digits digits", "unexpected extra argument"),
        ("export", "missing argument 'SOURCE'; see stl-deploy export --help"),
        ("export net.nir", "missing option '-o' / '--output'; give -o PATH"),
        ("simulate net.nir --backend onnx", "missing option '--input' / '-i'; give --input X.npz"),
        ("simulate net.nir -i x.npz --backend onnx", "missing option '-o' / '--output'; give -o Y.npz"),
        (
            "verify net.nir",
            "missing option '--against'; give an exported file or folder, or a backend: reference, onnx",
        ),
        (
            "train digits --set dataset.name=mnistt --print-config",
            "found 'mnistt' (did you mean 'mnist'?)",
        ),
        ("train mnis --print-config", "found 'mnis' (did you mean 'mnist'?)"),
        ("train digits --set train.epoch=4", "found 'epoch' (did you mean 'epochs'?)"),
        (
            "train digits --set network.0.kernel=40 --print-config",
            "network.0 (conv): kernel 40 with padding 1 does not",
        ),
        ("train digits --set dataset.encoder=counts --print-config", "expected direct, bernoulli, latency"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_2(cli: Any, call: str, sentence: str) -> None:
    found = cli(*call.split())
    assert found.code == 2
    assert found.err.startswith("stl-deploy: error: ")
    assert sentence in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""


def test_a_call_without_arguments_is_answered_with_the_help(cli: Any) -> None:
    found = cli("lava")
    assert found.code == 2
    assert "install" in found.err
    assert not found.err.startswith("stl-deploy: error")


def test_a_witness_is_installed_once_looked_at_and_removed(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path / "environments"))
    place, python = tmp_path / "environments" / "brian2", stand_in.python(tmp_path, (3, 12))
    missing = cli("witness", "status", "brian2", "--json")
    assert (missing.code, missing.json["ready"]) == (1, False)
    assert missing.json["reason"] == f"no environment of Brian2 at {place}; run: stl-deploy witness install brian2"
    assert "error: brian2 is not ready; 'stl-deploy witness install brian2' sets it up" in missing.err
    installed = cli("witness", "install", "Brian2", "--python", python, "--json")
    assert "installing Brian2 (about 200 MB; CeCILL-2.1)" in installed.err
    assert installed.json | {"ready": True, "reason": None, "python": str(place / "bin" / "python")} == installed.json
    again = cli("witness", "install", "brian2")
    assert again.err.splitlines() == [f"brian2 is ready at {place}"]
    assert cli("witness", "status", "brian2").code == 0
    removed = cli("witness", "remove", "brian2", "--json")
    assert removed.json["bytes"] > 0
    assert not place.exists()
    assert f"removed {place}: " in removed.err
    assert " bytes free again" in removed.err
    assert "found 'brain2' (did you mean 'brian2'?)" in cli("witness", "remove", "brain2").err


def test_lava_is_looked_at_installed_and_removed(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_LAVA", str(tmp_path / "lava"))
    monkeypatch.setattr("stl_deploy.exporters.lava.environment.check_three_neurons", lambda python: None)
    missing = cli("lava", "status", "--json")
    assert (missing.code, missing.json["ready"]) == (1, False)
    assert f"Lava is not ready: no Lava environment at {tmp_path / 'lava'}" in missing.err
    assert "error: Lava is not ready; 'stl-deploy lava install' sets it up" in missing.err
    installed = cli("lava", "install", "--python", stand_in.python(tmp_path, (3, 10)), "--json")
    assert installed.code == 0
    assert installed.json["ready"]
    assert installed.err.splitlines()[-1] == f"Lava is ready: lava-dl 0.6.0 at {tmp_path / 'lava'}"
    assert cli("lava", "status").code == 0
    assert cli("lava", "remove", "--json").json["location"] == str(tmp_path / "lava")
    assert "nothing to remove" in cli("lava", "remove").err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; import stl_deploy.cli.app; assert not {'torch', 'onnx', 'nir'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_idle_threads_sleep_in_a_call_of_the_command_line() -> None:
    code = (
        "import os\nfrom stl_deploy.cli import main\ntry:\n    main(['targets', '-q'])\n"
        "except SystemExit:\n    assert os.environ['OMP_WAIT_POLICY'] == 'passive'"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def _few(run_dir: Path, folder: Path) -> Path:
    """A file of four test samples of a run."""
    with np.load(run_dir / "test.npz") as kept:
        np.savez(folder / "few.npz", x=kept["x"][:, :4], y=kept["y"][:4])
    return folder / "few.npz"


def test_converting_a_nir_file_does_not_wait_for_torch(run_dir: Path, tmp_path: Path) -> None:
    few = _few(run_dir, tmp_path)
    arguments = ["export", str(run_dir / "net.nir"), "--to", "onnx", "-i", str(few), "-o", str(tmp_path / "n.onnx")]
    code = (
        f"import sys\nfrom stl_deploy.cli import main\ntry:\n    main({arguments})\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("verb", ["targets", "datasets", "prices", "doctor"])
def test_looking_around_gives_json_on_stdout_and_text_on_stderr(cli: Any, verb: str) -> None:
    found = cli(verb, "--json")
    assert found.code == 0
    assert found.json
    assert found.err


def test_the_fast_path_is_compiled_when_asked(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from stl_deploy.nn import fused

    monkeypatch.setattr(fused, "works", lambda *_: True)
    monkeypatch.setattr(fused, "is_warm", lambda *_: True)
    found = cli("doctor", "--warm", "--json")
    assert found.json["seconds"] >= 0
    assert "the fast path is compiled and kept" in found.err


def test_quiet_says_nothing(cli: Any) -> None:
    assert cli("targets", "-q").err == ""


def test_show(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    shown = cli("show", run_dir, "-o", tmp_path / "graph.svg", "--json")
    assert shown.code == 0
    rows = {row["node"]: row for row in shown.json}
    assert rows["linear1"]["synapses"] == 48 * 40
    assert rows["conv1"]["parameters"] == 8 * 9 + 8
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


def test_export_for_a_reader(cli: Any, tmp_path: Path) -> None:
    ones = np.ones(3, np.float32)
    lif = nir.LIF(ones * np.float32(2e-4), ones * 2, ones * 0, ones, ones * 0)
    layers = (nir.Affine(np.full((3, 2), 0.75, np.float32), ones), lif, nir.Linear(np.eye(3, dtype=np.float32)))
    nir.write(tmp_path / "any.nir", nir.NIRGraph.from_list(*layers))
    call = ["export", tmp_path / "any.nir", "--to", "nir", "--for", "norse", "-o", tmp_path / "net.nir", "--json"]
    done = cli(*call, "--dialect", "spec")
    assert done.code == 0
    assert done.json["verified"]["runs"][0]["exact"]
    load, step = done.json["load"].splitlines()
    assert load == f'net = norse.torch.from_nir(nir.read("{tmp_path / "net.nir"}"), dt=2**-10)'
    assert step.startswith("out, state = net(x[t], state)")


def test_a_reader_that_cannot_hold_a_node_is_refused_by_name(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    done = cli("export", run_dir, "--to", "nir", "--for", "snntorch", "-o", tmp_path / "net.nir")
    assert done.code == 1
    assert "node 'lif1': snntorch reads one threshold per layer, not 8" in done.err
    assert not any(tmp_path.iterdir())


def test_exporting_a_graph_writes_its_dialect(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    foreign = read_nir(run_dir / "net.nir")
    foreign.metadata = {}
    nir.write(tmp_path / "foreign.nir", foreign)
    done = cli("export", tmp_path / "foreign.nir", "--to", "nir", "-o", tmp_path / "a.nir", "--dialect", "spikingjelly")
    assert done.code == 0
    assert read_nir(tmp_path / "a.nir").metadata["stl_deploy"]["dialect"]["compare"] == "ge"


def test_check_counts_ties_on_a_given_input(cli: Any, tmp_path: Path) -> None:
    ones = np.ones(2, np.float32)
    lif = nir.LIF(ones * np.float32(2e-4), ones * 2, ones * 0, ones, ones * 0)
    nir.write(tmp_path / "tie.nir", nir.NIRGraph.from_list(nir.Linear(np.diag([1.0, 0.25]).astype(np.float32)), lif))
    np.savez(tmp_path / "x.npz", x=np.ones((1, 5, 2), np.float32))
    found = cli("check", tmp_path / "tie.nir", "--input", tmp_path / "x.npz", "--json")
    assert found.code == 0
    assert found.json["near_threshold"] == {"lif": 5}
    assert "last place of the threshold: lif 5" in found.err


def test_check_rounds_input_to_the_grid(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    with np.load(run_dir / "test.npz") as kept:
        np.savez(tmp_path / "x.npz", x=kept["x"][:, :2] + np.float32(1e-3))
    on, off = (cli("check", run_dir, "--target", "onnx", "-i", x) for x in (run_dir / "test.npz", tmp_path / "x.npz"))
    assert "not on the grid that the graph declares" not in on.err
    assert "input rounded to multiples of 2^-4, as the graph declares" in off.err


def test_check(cli: Any, run_dir: Path) -> None:
    found = cli("check", run_dir, "--json")
    assert found.code == 0
    whole = {"nir": "faithful", "onnx": "faithful"}
    rounded = dict.fromkeys(("netx", "verilog", "c"), "approximate")  # xylo is asked by name alone
    assert found.json["targets"] == whole | rounded
    assert {f["slug"] for f in found.json["findings"]} == {"quantisation"}


def test_chips_take_what_their_integers_round(cli: Any, run_dir: Path) -> None:
    found = cli("check", run_dir, "--target", "loihi1", "--target", "loihi2", "--json")
    assert found.code == 0
    assert found.json["targets"] == {"loihi1": "approximate", "loihi2": "approximate"}
    assert {f["node"] for f in found.json["findings"] if f["slug"] == "quantisation"} >= {"conv1", "lif1"}


def test_check_of_a_bad_graph_exits_1_and_names_the_node(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["lif2"].v_threshold[3, 1, 1] = -1
    nir.write(tmp_path / "bad.nir", graph)
    found = cli("check", tmp_path / "bad.nir", "--json")
    assert found.code == 1
    (error,) = [f for f in found.json["findings"] if f["severity"] == "error"]
    assert (error["slug"], error["node"]) == ("threshold-not-positive", "lif2")


def test_check_asks_a_reader_by_name(cli: Any, run_dir: Path) -> None:
    found = cli("check", run_dir, "--target", "sinabs", "--target", "snntorch", "--json")
    assert found.code == 1
    assert found.json["targets"] == {"snntorch": "unsupported", "sinabs": "faithful"}
    assert {f["slug"] for f in found.json["findings"]} == {"threshold-nonuniform", "check-only"}


def test_check_of_a_folder_is_one_table(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    (tmp_path / "good.nir").write_bytes((run_dir / "net.nir").read_bytes())
    (tmp_path / "none.nir").write_bytes(b"not HDF5")
    graph.nodes["lif2"].v_threshold[3, 1, 1] = -1
    nir.write(tmp_path / "bad.nir", graph)
    found = cli("check", tmp_path, "--target", "nir", "--json")
    assert found.code == 1
    rows = [line.split(maxsplit=3) for line in found.err.splitlines()]
    assert rows[1:4] == [
        ["bad.nir", "unsupported", "1", "error: threshold-not-positive at 'lif2'"],
        ["good.nir", "faithful", "0"],
        ["none.nir", "unsupported", "1", "error: bad-input"],
    ]
    assert "2 of 3 files have errors" in found.err
    assert {name: report["ok"] for name, report in found.json["files"].items()} == {
        "bad.nir": False,
        "good.nir": True,
        "none.nir": False,
    }
    assert "give a run folder or one .nir file" in cli("check", tmp_path, "--input", run_dir / "test.npz").err


def test_check_measures_what_the_dialect_leaves_open(cli: Any, tmp_path: Path) -> None:
    ones = np.ones(1, np.float32)
    nodes = {"input": nir.Input(np.array([1])), "if": nir.IF(1e4 * ones, ones, 0 * ones), "output": nir.Output([1])}
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, [("input", "if"), ("if", "output")], type_check=False))
    np.savez(tmp_path / "x.npz", x=np.array([1, 0], np.float32).reshape(2, 1, 1))
    found = cli("check", tmp_path / "net.nir", "--target", "nir", "--input", tmp_path / "x.npz", "--json")
    assert found.code == 0
    differ = {(e["option"], e["instead"]): e["differ"] for e in found.json["effects"]}
    assert differ[("compare", "ge")] == 1  # the potential is 1 and so is the threshold
    assert differ[("leak", "exp")] == 0
    assert ["compare", "gt", "ge", "1", "of", "2"] in [line.split() for line in found.err.splitlines()]
    assert "nothing changes with: " in found.err


@pytest.mark.parametrize(("target", "suffix"), [("nir", ".nir"), ("onnx", ".onnx"), ("netx", ".net")])
def test_export_verify_simulate(cli: Any, run_dir: Path, tmp_path: Path, target: str, suffix: str) -> None:
    artifact = tmp_path / f"net{suffix}"
    exported = cli("export", run_dir, "--to", target, "-o", artifact, "--json")
    assert exported.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [artifact.name, f"{artifact.name}.manifest.json"]
    verified = cli("verify", run_dir, "--against", artifact, "--no-lava", "--json")
    assert verified.code == 0
    (entry,) = verified.json["runs"]
    assert entry["exact"] is (target != "netx")
    assert entry["compared"] > 0


@pytest.mark.parametrize("backend", ["reference", "onnx", "loihi"])
def test_simulate_writes_spikes_of_every_node(cli: Any, run_dir: Path, tmp_path: Path, backend: str) -> None:
    output = tmp_path / "y.npz"
    done = cli(
        "simulate", run_dir, "--input", run_dir / "test.npz", "--backend", backend, "-o", output, "--record", "--json"
    )
    assert done.code == 0
    assert done.json["accuracy"] > 0.7
    with np.load(output) as arrays:
        assert arrays["y"].shape[2:] == (10,)
        assert {k for k in arrays.files if k.startswith("spikes__")} == {
            f"spikes__{name}" for name in ("lif1", "pool1", "lif2", "pool2", "lif3")
        }


def test_net_files_take_integers(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    with np.load(run_dir / "test.npz") as arrays:
        x = (arrays["x"][:, :20] * 16).astype(np.int32)
        np.savez(tmp_path / "x.npz", x=x)
    done = cli(
        "simulate",
        run_dir / "net.net",
        "--input",
        tmp_path / "x.npz",
        "--backend",
        "loihi",
        "-o",
        tmp_path / "y.npz",
        "--record",
    )
    assert done.code == 0
    with np.load(tmp_path / "y.npz") as arrays:
        assert "spikes__layer1" in arrays.files
        assert arrays["y"].shape == (4, 20, 40)


def test_energy_json_has_the_contracts_keys(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    found = cli("energy", run_dir, "--input", run_dir / "test.npz", "-o", tmp_path, "--json")
    assert found.code == 0
    wanted = [
        "schema_version",
        "source",
        "T",
        "batch",
        "layers",
        "totals",
        "energy",
        "conventions",
        "break_even",
        "assumptions",
        "unpriced",
    ]
    assert set(found.json) >= set(wanted)
    assert json.loads((tmp_path / "energy.json").read_text()) == found.json


def test_fold_with_thresholds_in_the_weights(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    folded = cli("fold", run_dir, "-o", tmp_path / "one.nir", "--thresholds", "weights", "--json")
    assert folded.code == 0
    assert folded.json["exact"] is True
    thresholds = read_nir(tmp_path / "one.nir").nodes["lif3"].v_threshold
    assert (np.nextafter(thresholds, np.float32(2)) == 1).all()


def test_train_prints_its_configuration(cli: Any) -> None:
    shown = cli("train", "digits", "--print-config", "--set", "train.epochs=7", "--mode", "sl")
    assert shown.code == 0
    assert "epochs: 7" in shown.out
    assert "mode: sl" in shown.out


def test_train_prints_its_configuration_as_json_where_data_are_asked_for(cli: Any) -> None:
    shown = cli("train", "digits", "--print-config", "--set", "train.epochs=7", "--json")
    assert shown.code == 0
    assert shown.json == yaml.safe_load(cli("train", "digits", "--print-config", "--set", "train.epochs=7").out)


def test_simulate_lists_every_array_that_it_wrote(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    call = ("simulate", run_dir, "-i", run_dir / "test.npz", "--backend", "reference", "-o", tmp_path / "y.npz")
    told = cli(*call, "--record", "--json").json["arrays"]
    with np.load(tmp_path / "y.npz") as written:
        assert told == {name: list(array.shape) for name, array in written.items()}
    assert "spikes__lif1" in told
    assert list(cli(*call, "--json").json["arrays"]) == ["y"]


@pytest.mark.parametrize("verb", ["fold", "report"])
def test_an_artifact_that_is_no_graph_is_told_what_is_expected(
    cli: Any, run_dir: Path, tmp_path: Path, verb: str
) -> None:
    more = {"fold": ("-o", tmp_path / "f.nir"), "report": ("-i", run_dir / "test.npz", "-o", tmp_path)}[verb]
    for name, kind in (("net.onnx", "onnx"), ("net.net", "netx")):
        shown = cli(verb, run_dir / name, *more)
        assert shown.code == 2
        assert f"{name}: expected a run folder, a .nir or a .program file; found an artifact of {kind}" in shown.err


def test_a_resumed_training_takes_the_folder_s_own_configuration(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    own = cli("train", "--resume", "-o", run_dir, "--print-config").out
    assert own == (run_dir / "config.yaml").read_text()
    assert own == cli("train", run_dir, "--resume", "--print-config").out
    assert own != cli("train", "--resume", "-o", tmp_path, "--print-config").out  # nothing there: digits


BAD_INPUTS = {
    "missing": (None, "no such file"),
    "not-npz": (b"hello", "not an .npz file"),
    "no-x": ({"z": np.zeros((2, 2))}, "or x__NAME for each of several inputs; found z"),
    "both": ({"x": np.zeros((4, 2, 1, 8, 8)), "x__input": np.zeros((4, 2, 1, 8, 8))}, "found both 'x' and x__input"),
    "other-input": ({"x__a": np.zeros((4, 2, 1, 8, 8))}, "expected inputs input; found a"),
    "wrong-shape": ({"x": np.zeros((4, 2, 1, 8, 7), np.float32)}, "[4, 2, 1, 8, 7]"),
    "nan": ({"x": np.full((4, 2, 1, 8, 8), np.nan, np.float32)}, "found NaN or infinity"),
    "objects": ({"x": np.array([[{}]], dtype=object)}, "Python objects"),
    "text": ({"x": np.array([["a"]])}, "expected float32, integers or bool"),
    "labels": (
        {"x": np.zeros((4, 2, 1, 8, 8), np.float32), "y": np.zeros(5, int)},
        "expected integers [2]",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize("verb", ["simulate", "energy"])
def test_bad_input_is_one_sentence_and_exit_2(cli: Any, run_dir: Path, tmp_path: Path, name: str, verb: str) -> None:
    contents, expected = BAD_INPUTS[name]
    path = tmp_path / "x.npz"
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    elif contents is not None:
        np.savez(path, **contents)  # type: ignore[arg-type]
    output = tmp_path / "out"
    extra = ["--backend", "reference", "-o", output / "y.npz"] if verb == "simulate" else ["-o", output]
    found = cli(verb, run_dir, "--input", path, *extra)
    assert found.code == 2
    assert expected in found.err
    assert found.err.startswith("stl-deploy: error: ")
    assert found.err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_one_sentence_and_exit_2(
    cli: Any, run_dir: Path, tmp_path: Path, label: int
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 2, 1, 8, 8), np.float32), y=np.array([3, label]))
    output = tmp_path / "out" / "y.npz"
    found = cli("simulate", run_dir, "--input", tmp_path / "x.npz", "--backend", "reference", "-o", output)
    assert found.code == 2
    sentence = f"expected labels from 0 to 9, the classes of the output; found {label} of sample 1"
    sentence += "; count them from 0: y - 1" if label == 10 else ""
    assert found.err == f"stl-deploy: error: {sentence}\n"
    assert not output.parent.exists()


def test_simulate_says_silent_beside_the_accuracy(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["lif2"].v_threshold *= np.float32(1000)
    nir.write(tmp_path / "high.nir", graph)
    call = ("--input", run_dir / "test.npz", "--backend", "reference", "-o", tmp_path / "y.npz")
    found = cli("simulate", tmp_path / "high.nir", *call)
    assert "accuracy " in found.err
    assert "warning: no spike in lif2, pool2, " in found.err
    assert list(np.load(tmp_path / "y.npz")) == ["y"]  # spikes are recorded for the sentence alone


def test_simulate_decides_as_the_graph_says(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    x = np.load(run_dir / "test.npz")["x"][:, :200]
    graph = read_nir(run_dir / "net.nir")
    summed, largest = (reduce(run(lower(graph), x).y, axis=0).argmax(1) for reduce in (np.sum, np.max))
    assert (summed != largest).any()
    np.savez(tmp_path / "x.npz", x=x, y=largest)
    graph.metadata["stl_deploy"]["decision"] = "max"
    nir.write(tmp_path / "max.nir", graph)
    call = ("--input", tmp_path / "x.npz", "--backend", "reference", "-o", tmp_path / "y.npz", "--json")
    assert cli("simulate", tmp_path / "max.nir", *call).json["accuracy"] == 1
    assert cli("simulate", run_dir, *call).json["accuracy"] == pytest.approx((summed == largest).mean())

    def of_artifact(target: str, name: str, backend: str) -> Any:
        artifact, given = tmp_path / name, ("--to", target, "-o", tmp_path / name, "--no-verify")
        assert cli("export", tmp_path / "max.nir", *given, "--input", tmp_path / "x.npz").code == 0
        x = tmp_path / ("whole.npz" if target == "netx" else "x.npz")
        return cli("simulate", artifact, "--input", x, "--backend", backend, "-o", tmp_path / "y.npz", "--json")

    assert of_artifact("onnx", "max.onnx", "onnx").json["accuracy"] == 1
    found = of_artifact("c", "max_c", "loihi").json["accuracy"]
    decided = np.load(tmp_path / "y.npz")["y"].max(axis=0).argmax(axis=1)
    assert found == pytest.approx((decided == largest).mean())
    np.savez(tmp_path / "whole.npz", x=np.round(x * 16), y=largest)
    of_layers = of_artifact("netx", "max.net", "loihi")
    assert of_layers.json["accuracy"] is None
    assert "max.net does not record how to decode its outputs" in of_layers.err
    assert json.loads((tmp_path / "max.net.manifest.json").read_text())["readout"]["over_time"] == "max"
    assert "readout: max over time" in cli("show", tmp_path / "max.nir").err


def _truncated(path: Path, run_dir: Path) -> None:
    path.write_bytes((run_dir / "net.nir").read_bytes()[:4000])


def _wrong_kind(path: Path, run_dir: Path) -> None:
    path.write_bytes((run_dir / "net.onnx").read_bytes())


def _nan(path: Path, run_dir: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["conv2"].weight[1, 2, 0, 1] = np.nan
    nir.write(path, graph)


def _stride_0(path: Path, run_dir: Path) -> None:
    path.write_bytes((run_dir / "net.nir").read_bytes())
    with h5py.File(path, "a") as file:
        del file["node/nodes/conv1/stride"]
        file["node/nodes/conv1/stride"] = np.zeros(2, int)


def _unknown_node(path: Path, run_dir: Path) -> None:
    path.write_bytes((run_dir / "net.nir").read_bytes())
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif3/type"]
        file["node/nodes/lif3/type"] = "Izhikevich"


def _empty_loop(path: Path, run_dir: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["again"] = nir.Linear(np.eye(10, dtype=np.float32))
    edges = [*graph.edges, ("vote", "again"), ("again", "again")]
    nir.write(path, nir.NIRGraph(graph.nodes, edges, metadata=graph.metadata, type_check=False))


def _shapes(path: Path, run_dir: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["linear1"] = nir.Affine(np.ones((40, 47), np.float32), np.ones(40, np.float32))
    nir.write(path, nir.NIRGraph(graph.nodes, graph.edges, metadata=graph.metadata, type_check=False))


def _threshold(path: Path, run_dir: Path) -> None:
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["lif3"].v_threshold[17] = 0
    nir.write(path, graph)


BAD_GRAPHS = [
    (_truncated, "not a NIR file"),
    (_wrong_kind, "not a NIR file"),
    (_nan, "node 'conv2': field 'weight': expected finite numbers; found nan at index [1, 2, 0, 1]"),
    (_stride_0, "node 'conv1': field 'stride': expected 2 integers of at least 1; found [0.0, 0.0]"),
    (_unknown_node, "Izhikevich"),
    (_empty_loop, "has no neuron in it"),
    (_shapes, "node 'linear1': expected 47 values as input"),
    (_threshold, "node 'lif3': v_threshold: expected thresholds above 0 here; found 0 at index [17]"),
]


@pytest.mark.parametrize(("spoil", "expected"), BAD_GRAPHS, ids=[spoil.__name__ for spoil, _ in BAD_GRAPHS])
def test_bad_graphs_are_one_sentence_and_exit_2(
    cli: Any, run_dir: Path, tmp_path: Path, spoil: Any, expected: str
) -> None:
    path, output = tmp_path / "bad.nir", tmp_path / "out" / "net.onnx"
    spoil(path, run_dir)
    found = cli("export", path, "--to", "onnx", "-o", output)
    assert found.code == 2
    assert expected in found.err
    assert found.err.count("\n") == 1
    assert not output.parent.exists()


def test_wrong_suffixes_and_missing_sources(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    assert (
        "expected a name that ends in .onnx for onnx; found '.nir'"
        in cli("export", run_dir, "--to", "onnx", "-o", tmp_path / "a.nir").err
    )
    (tmp_path / "a.onnx").mkdir()
    assert "a folder; name a file to write" in cli("export", run_dir, "--to", "onnx", "-o", tmp_path / "a.onnx").err
    assert "no such file or folder" in cli("check", tmp_path / "none.nir").err
    assert "a folder without net.nir" in cli("check", tmp_path).err
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert f"a trained run without its graph; make it with stl-deploy fold {tmp_path}" in cli("check", tmp_path).err
    assert "found an artifact of onnx" in cli("energy", run_dir / "net.onnx").err
    (tmp_path / "net").write_bytes(b"")
    assert "found a name without an ending" in cli("check", tmp_path / "net").err
    assert "found a pipe or device" in cli("check", os.devnull).err


@pytest.mark.parametrize("verb", ["energy", "report"])
def test_a_file_in_the_place_of_a_folder(cli: Any, run_dir: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    source = ("net.nir", "-i", run_dir / "test.npz")
    for place, found in ((tmp_path / "taken", "a file"), (Path(os.devnull), "a pipe or device")):
        shown = cli(verb, run_dir / source[0], *source[1:], "-o", place)
        assert shown.code == 2
        assert f"{place}: expected a folder to write into; found {found}; name another" in shown.err
    assert (tmp_path / "taken").read_bytes() == b"mine"
    shown = cli("export", run_dir, "--to", "c", "-o", os.devnull)
    assert "expected a folder to write into; found a pipe or device" in shown.err


def test_a_chip_s_name_leads_to_its_format(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    shown = cli("export", run_dir, "--to", "loihi", "-o", tmp_path / "a.net")
    formats = "nir, program, onnx, netx, verilog, c, c_floats, xylo"
    assert f"expected a format: {formats}; found 'loihi' (netx is Loihi's integers" in shown.err


def test_warnings_are_lines_without_a_place_in_the_code(run_dir: Path, tmp_path: Path) -> None:
    with np.load(run_dir / "test.npz") as kept:
        np.savez(tmp_path / "x.npz", x=kept["x"][:, :1].astype(np.float64) + 1e-12)
    command = [sys.executable, "-m", "stl_deploy", "check", run_dir, "-i", tmp_path / "x.npz", "--target", "nir"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0
    (line,) = [line for line in shown.stderr.splitlines() if "float64 rounded to float32" in line]
    assert line.startswith("warning: ")
    assert "UserWarning" not in shown.stderr


def test_debug_shows_the_traceback_anywhere_on_the_line(cli: Any, tmp_path: Path) -> None:
    assert "Traceback" in cli("check", tmp_path / "none.nir", "--debug").err


def test_an_interrupt_is_said_in_a_sentence(cli: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stl_deploy.verbs.evaluating.load_network", interrupt)
    found = cli("eval", run_dir)
    assert found.code == 130
    assert found.err.splitlines()[-1] == "stl-deploy: interrupted; nothing half-written is left"


def test_an_interrupt_in_code_from_a_string_ends_with_130_too(tmp_path: Path) -> None:
    """Under ``python -m``, which else ends by SIGINT though the interrupt was handled."""
    (tmp_path / "interrupted.py").write_text(
        "import sys\nimport stl_deploy.cli.app as app\nfrom stl_deploy.cli import main\n"
        "app.app = lambda **_: exec('raise KeyboardInterrupt')\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "stl-deploy: interrupted; nothing half-written is left\n"


def test_a_file_named_energy_py_changes_nothing(run_dir: Path, tmp_path: Path) -> None:
    for name in ("energy.py", "exporters.py"):
        (tmp_path / name).write_text("raise RuntimeError('a user file was imported')\n")
    command = [
        sys.executable,
        "-m",
        "stl_deploy",
        "energy",
        run_dir / "net.nir",
        "--input",
        _few(run_dir, tmp_path),
        "-q",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            "report {run} --input {run}/test.npz",
            "--input, --dialect, --input-grid and -o apply to reports of .nir files",
        ),
        (
            "fold {run} -o {out}/a.nir --dialect norse",
            "--merge-pools, --delays, --dialect and --input apply to .nir files only; fold the run first",
        ),
        ("run digits --pretrained --seed 1 -o {out}/run", "--pretrained uses the model unchanged: leave out --mode"),
        (
            "simulate {run}/net.onnx -i {run}/test.npz --backend onnx -o {out}/y.npz --input-grid 3",
            "--input-grid applies to graphs only; an artifact of onnx has",
        ),
        (
            "simulate {run}/net.onnx -i {run}/test.npz --backend reference -o {out}/y.npz",
            "expected a backend that reads onnx (onnx); found",
        ),
        ("energy {run}/net.nir", "energy depends on activity; give the input with --input X.npz"),
        ("report {run}/net.nir", "expected input to run the network on; give --input X.npz"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(
    cli: Any, run_dir: Path, tmp_path: Path, call: str, sentence: str
) -> None:
    found = cli(*call.format(run=run_dir, out=tmp_path).split())
    assert found.code == 2, found.err
    assert sentence in found.err
    assert not any(tmp_path.iterdir())


def test_a_folder_of_sound_files_is_checked(cli: Any, run_dir: Path, tmp_path: Path) -> None:
    for name in ("a.nir", "b.nir"):
        shutil.copy(run_dir / "net.nir", tmp_path / name)
    found = cli("check", tmp_path, "--json")
    assert found.code == 0
    assert [report["ok"] for report in found.json["files"].values()] == [True, True]


@pytest.mark.nightly
def test_a_ready_made_model_goes_the_whole_way(cli: Any, tmp_path: Path) -> None:
    found = cli("run", "digits", "--pretrained", "--no-lava", "--no-twin", "-o", tmp_path / "run", "--json")
    assert found.code == 0
    assert "trained by 'stl-deploy" in found.err
    assert "1,259 training, 179 validation and 359 test samples" in found.err
    assert (tmp_path / "run" / "report.html").is_file()


def test_an_ann_is_not_told_to_be_folded(cli: Any, tmp_path: Path) -> None:
    found = cli("train", "digits", "--mode", "ann", "--set", "train.epochs=1", "-o", tmp_path / "ann")
    assert found.code == 0
    assert f"next:  stl-deploy eval {tmp_path / 'ann'}   stl-deploy energy RUN --ann {tmp_path / 'ann'}" in found.err


def test_a_dead_network_is_told_after_training(cli: Any, tmp_path: Path) -> None:
    dead = ("--mode", "sl", "--set", "neuron.threshold=60", "--set", "train.epochs=1")
    found = cli("train", "digits", *dead, "-o", tmp_path / "dead")
    assert found.code == 0
    assert "warning: no spike in lif1, lif2, lif3 on any test sample; lower neuron.threshold" in found.err
