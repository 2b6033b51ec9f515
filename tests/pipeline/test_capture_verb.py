"""The verb capture, and the verbs that work on what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.cli.main import main
from stl_deploy.errors import InputError
from stl_deploy.runs.user_module import load_module, module_input

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        u = v = 0.0
        out = []
        for step in x:
            u = 0.5 * u + self.fc1(step)
            s = (u > 0.25).float()
            u = u - 0.25 * s
            v = 0.5 * v + self.fc2(s)
            z = (v >= 0.125).float()
            v = v * (1 - z)
            out.append(z)
        return torch.stack(out).mean(0)

number = 3

def fails():
    raise ValueError("no such thing")
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    x = np.random.default_rng(0).random((8, 4, 6), np.float32) * 2
    np.savez(tmp_path / "x.npz", x=x)
    return tmp_path


@pytest.mark.parametrize("verb", ["capture", "check"])
def test_what_a_user_s_file_prints_does_not_stand_among_the_data(files: Path, capsys: Any, verb: str) -> None:
    text = NET.replace("        u = v = 0.0", "        print('in forward', x.shape)\n        u = v = 0.0")
    (files / "net.py").write_text(f"print('while imported')\n{text}")
    more = ["-o", str(files / "net.nir")] if verb == "capture" else []
    with pytest.raises(SystemExit):
        main([verb, f"{files / 'net.py'}:Net", "--input", str(files / "x.npz"), "--json", *more])
    said = capsys.readouterr()
    assert json.loads(said.out)
    assert "while imported" in said.err
    assert "in forward" in said.err


@pytest.mark.parametrize("text", [f"{NET}\nimport sys\nsys.exit(0)\n", "def Net():\n    raise SystemExit\n"])
def test_a_user_s_file_that_ends_the_program_is_an_input_that_is_wrong(files: Path, capsys: Any, text: str) -> None:
    (files / "net.py").write_text(text)
    arguments = [f"{files / 'net.py'}:Net", "--input", str(files / "x.npz"), "-o", str(files / "net.nir")]
    with pytest.raises(SystemExit) as done:
        main(["capture", *arguments])
    assert done.value.code == 2
    assert "SystemExit" in capsys.readouterr().err
    assert not (files / "net.nir").exists()


def test_a_captured_file_goes_through_the_verbs(files: Path, capsys: Any) -> None:
    net, x = files / "net.nir", files / "x.npz"
    arguments = [f"{files / 'net.py'}:Net", "--input", str(x), "-o", str(net), "--json"]
    with pytest.raises(SystemExit) as done:
        main(["capture", *arguments])
    assert not done.value.code
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["proof"]["replay_differing"] == 0
    assert told["readout"] == {"over_time": "mean", "population": 1}
    assert "your code" in captured.err
    verbs.export(net, "onnx", files / "net.onnx")
    assert verbs.verify(net, [files / "net.onnx"], input_file=x).runs[0].exact
    verbs.simulate(net, x, "reference", files / "y.npz")
    with np.load(files / "y.npz") as found:
        assert found["y"].shape == (8, 4, 3)
    assert verbs.energy(net, x).as_dict()["totals"]["spikes"] > 0
    assert {row["node"] for row in verbs.show(net)} >= {"fc1", "fc2"}


@pytest.mark.parametrize("pick", [[], ["--pick", "0"]])
def test_tensors_that_are_left_aside_are_told(files: Path, capsys: Any, pick: list[str]) -> None:
    (files / "net.py").write_text(NET.replace("return torch.stack(out).mean(0)", "return torch.stack(out), v"))
    arguments = [f"{files / 'net.py'}:Net", "--input", str(files / "x.npz"), "-o", str(files / "net.nir")]
    with pytest.raises(SystemExit) as done:
        main(["capture", *arguments, *pick])
    assert not done.value.code
    said = "the module returns 2 tensors; the graph's output is the first (--pick INDEX|NAME names another)"
    told = " ".join(capsys.readouterr().err.split())
    assert (said in told) == (not pick)
    assert "output= names another" not in told


def test_a_graph_captured_with_time_inside_says_what_to_do_with_x(files: Path, capsys: Any) -> None:
    (files / "net.py").write_text(NET.replace("for step in x:", "for step in x.expand(5, *x.shape):"))
    np.savez(files / "x.npz", x=np.random.default_rng(0).random((4, 6), np.float32) * 2)
    net, x = files / "net.nir", files / "x.npz"
    with pytest.raises(SystemExit) as done:
        main(["capture", f"{files / 'net.py'}:Net", "--input", str(x), "-o", str(net), "--time", "inside"])
    assert not done.value.code
    for verb in (["export", str(net), "--to", "onnx", "-o", str(files / "net.onnx")], ["energy", str(net)]):
        with pytest.raises(SystemExit) as done:
            main([*verb, "--input", str(x)])
        assert done.value.code == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "(--time inside), and the graph takes them written out: repeat x, np.repeat(x[None], 5, axis=0)" in told
    with np.load(x) as given:
        frames = given["x"]
        np.savez(x, x=np.repeat(frames[None], 5, axis=0))
    graph = stl.read(net)
    for backend in ("reference", "onnx"):
        with pytest.raises(InputError, match=r"\(time='inside'\), .*: repeat x, np\.repeat\(x\[None\], 5, axis=0\)"):
            graph.simulate(frames, backend=backend)
        assert graph.simulate(np.repeat(frames[None], 5, axis=0), backend=backend).y.shape[0] == 5
    assert verbs.energy(net, x).as_dict()["totals"]["spikes"] > 0


def test_weights_from_both_kinds_of_file(files: Path) -> None:
    state = {
        "fc1.weight": torch.ones(16, 6),
        "fc1.bias": torch.zeros(16),
        "fc2.weight": torch.ones(3, 16),
        "fc2.bias": torch.zeros(3),
    }
    save_file(state, files / "w.safetensors")
    torch.save(state, files / "w.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": w for name, w in state.items()}}, files / "parallel.pt")
    optimiser = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": optimiser}, files / "training.pt")
    torch.save({f"_orig_mod.{name}": weight for name, weight in state.items()}, files / "compiled.pt")
    graphs = []
    for name in ("w.safetensors", "w.pt", "parallel.pt", "training.pt", "compiled.pt"):
        verbs.capture(f"{files / 'net.py'}:Net", files / "x.npz", files / "out.nir", weights=files / name)
        graphs.append((files / "out.nir").read_bytes())
    assert len(set(graphs)) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Nut", r"expected a name in it \(Net, fails"),
        ("number", "expected a torch.nn.Module, or what returns one; found a int"),
        ("fails", "ValueError: no such thing"),
    ],
)
def test_names_that_make_no_module(files: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        verbs.capture(f"{files / 'net.py'}:{name}", files / "x.npz", files / "net.nir")
    assert not (files / "net.nir").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("net.py", "expected FILE.py:NAME, the name of a module"),
        ("net.txt:Net", "expected FILE.py:NAME, the name of a module"),
        ("none.py:Net", r"none\.py: expected a Python file; found no such file"),
        ("broken.py:Net", r"broken\.py: line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_files_that_make_no_module(files: Path, source: str, reason: str) -> None:
    (files / "broken.py").write_text("one = 1\none / 0\n")
    with pytest.raises(InputError, match=reason):
        load_module(str(files / source))


def test_files_without_input_or_weights(files: Path) -> None:
    np.savez(files / "y.npz", y=np.zeros(3))
    with pytest.raises(InputError, match=r"y\.npz: expected an array 'x'; found y"):
        verbs.capture(f"{files / 'net.py'}:Net", files / "y.npz", files / "net.nir")
    with pytest.raises(InputError, match=r"w\.pt: expected a file of weights; found no such file"):
        load_module(f"{files / 'net.py'}:Net", files / "w.pt")
    torch.save([torch.ones(2)], files / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt: expected a state dict of tensors; found none in a list"):
        load_module(f"{files / 'net.py'}:Net", files / "w.pt")


@pytest.mark.parametrize(
    ("time", "labels", "reason"),
    [
        (
            "first",
            8,
            r"8 steps of 4 samples\); found int64 \[8\]; if forward takes \[B, T, ...\], give .*second",
        ),
        (
            "second",
            4,
            r"4 steps of 8 samples\); found int64 \[4\]; if forward takes \[T, B, ...\], give .*first",
        ),
        (
            "step",
            8,
            r"8 steps of 4 samples\); found int64 \[8\]; if forward takes \[T, B, ...\], swap the first",
        ),
        ("inside", 4, r"is read as 8 samples\); found int64 \[4\]; leave y out if it holds no labels"),
        ("none", 4, r"is read as 8 samples\); found int64 \[4\]; leave y out if it holds no labels"),
    ],
)
def test_labels_that_contradict_the_samples_are_refused(files: Path, time: Any, labels: int, reason: str) -> None:
    x = np.zeros((8, 4, 6), np.float32)
    np.savez(files / "y.npz", x=x, y=np.zeros(labels, np.int64))
    with pytest.raises(InputError, match=rf"'y': expected one label for each sample \(x, \[8, 4, 6\], .*{reason}"):
        verbs.capture(f"{files / 'net.py'}:Net", files / "y.npz", files / "net.nir", time=time)
    assert not (files / "net.nir").exists()
    np.savez(files / "y.npz", x=x, y=np.zeros(12 - labels, np.int64))
    assert module_input(files / "y.npz", time).shape == x.shape


def test_weights_of_another_model(files: Path) -> None:
    save_file({"fc9.weight": torch.ones(2)}, files / "w.safetensors")
    with pytest.raises(InputError, match=r"found 0 of them among 1; missing: 'fc1.weight', .* left over: 'fc9.weight'"):
        verbs.capture(f"{files / 'net.py'}:Net", files / "x.npz", files / "net.nir", weights=files / "w.safetensors")


def test_a_pickle_is_not_run(files: Path) -> None:
    torch.save({"x": print}, files / "w.pt")
    with pytest.raises(InputError, match="expected a state dict of tensors; found none in a dict"):
        verbs.capture(f"{files / 'net.py'}:Net", files / "x.npz", files / "net.nir", weights=files / "w.pt")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({1: torch.zeros(1)}, r"expected tensors of real numbers by name; found '1' of torch.float32"),
        (
            {"\x1b[2J": torch.ones(1, dtype=torch.complex64)},
            r"expected tensors .*; found '\\x1b\[2J' of torch.complex64",
        ),
        ({"0.weight": torch.full((3, 4), torch.nan)}, "'0.weight': expected finite weights; found NaN or infinity"),
        (
            {"0.weight": torch.full((3, 4), 1e300, dtype=torch.float64)},
            "'0.weight': expected finite weights; found NaN or infinity",
        ),
        ({"0.weight": torch.zeros(1).expand(2**20)}, "size mismatch for 0.weight"),
    ],
)
def test_weights_that_are_none(tmp_path: Path, changed: dict[Any, torch.Tensor], said: str) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(4, 3))\n")
    state = torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict()
    torch.save({**state, **changed}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=said):
        load_module(f"{tmp_path / 'net.py'}:net", tmp_path / "w.pt")


def test_quantise_is_of_runs_and_says_what_is_for_graphs(tmp_path: Path) -> None:
    net = tmp_path / "net.nir"
    net.touch()
    with pytest.raises(InputError, match=r"net\.nir: expected a run folder, .* Python: net\.quantised\(\)"):
        verbs.quantise(net, tmp_path / "out")
    assert not (tmp_path / "out").exists()
